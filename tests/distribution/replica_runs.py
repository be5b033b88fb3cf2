"""Train a small network by each method on one replica or several, and write down what came out.

A program, because a process can have one strategy and one backend of Keras only:

    python replica_runs.py FOLDER one-keras-bsq one-tf_keras-bsq mirrored-keras-bsq
    TF_CONFIG=... python replica_runs.py FOLDER multi_worker-keras-bsq

Writes `FOLDER/<run>-<worker>.npz` for each run: all weights in order, the bits of each layer while
they were learned and once frozen, and the losses of the epochs. Network and data have no batch norm
and no randomness of their own; ranges of inputs come from the first batch.
"""

import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

import keras  # noqa: E402
import numpy as np  # noqa: E402
from datasets import Batches, EvaluationBatches, load  # noqa: E402
from training import distribution, kinds, optimizing  # noqa: E402
from training.settings import Settings  # noqa: E402
from training.workers import OneWorker  # noqa: E402

import kerasbits as kb  # noqa: E402
from kerasbits import sites  # noqa: E402

STEPS, EPOCHS, BATCH = 4, 2, 16
IN_GRAPHS = "bitpruning"
QUANTIZERS = {
    "bitpruning": (kb.BitPruning(strength=0.5), kb.BitPruning(bits=6)),
    "least_squares_binary": (
        kb.LeastSquaresBinary("ls2"),
        kb.LeastSquaresBinary("ls2", running="train_and_eval"),
    ),
    "bsq": (kb.BSQ(bits=4, strength=0.05, rate=16.0), kb.Uniform(6)),
    "apot": (kb.APoT(4), kb.APoT(4)),
    "bayesian_bits": (
        kb.BayesianBits(strength=0.3, phi=-0.5),
        kb.BayesianBits(strength=0.3, phi=-0.5),
    ),
    "uniform": (kb.Uniform(4), kb.Uniform(4)),
}


def network(layers, keras_module):
    """A convolution and a dense layer, both with inputs that are worth quantizing."""
    keras_module.utils.set_random_seed(5)
    inputs = keras_module.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, strides=2, activation="relu", name="conv")(inputs)
    x = layers.Flatten(name="flatten")(x)
    return keras_module.Model(inputs, layers.Dense(10, name="logits")(x))


def train(workers, kind, method, batches, evaluation):
    """Learn, freeze, tune; the results."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Tracing takes longer than these few steps; one method shows that graphs work.
        tf.config.run_functions_eagerly(method != IN_GRAPHS)
    with workers.scope():
        model = kind.quantize_model(network(kind.keras.layers, kind.keras), *QUANTIZERS[method])
        seeds(model)
    model = workers.trained(model)
    with workers.scope():
        optimizer = optimizing.optimizer(kind.keras, "adam", 1e-2, model)
        optimizing.compile_model(kind.keras, model, optimizer, kind.jit_compile)
    found, losses = {}, []
    for epoch in range(EPOCHS + 1):
        if epoch == EPOCHS:
            found["learned_bits"] = bits(model)
            kb.freeze(model)
        history = model.fit(
            workers.dataset(batches, epoch * STEPS, (epoch + 1) * STEPS),
            steps_per_epoch=STEPS,
            verbose=0,
            shuffle=False,
            callbacks=[kind.callbacks.AdjustBits()],
        ).history
        losses.append(history["loss"][0])
    test = model.evaluate(workers.evaluation(evaluation), steps=evaluation.steps, verbose=0)
    found |= {f"weight{i}": np.array(v.numpy()) for i, v in enumerate(model.variables)}
    return {**found, "bits": bits(model), "losses": losses, "test": test}


def seeds(model):
    """Draw the same gates in every run."""
    for i, place in enumerate(sites.places(model)):
        if place.host.seed_generator is not None:
            state = place.host.seed_generator.state
            state.assign(np.array([i + 1, 0], keras.backend.standardize_dtype(state.dtype)))


def bits(model):
    """Of the weights of each layer and of the inputs."""
    return [(row.bits, row.input_bits or 0) for row in kb.report(model).rows]


def workers_for(how, folder):
    """Those of a run."""
    if how == "one":
        return OneWorker()
    settings = Settings(model_dir=folder, distribute=how, batch_size=BATCH)
    return distribution.start(settings, patience=120)


def prepare(hows):
    """Give TensorFlow two devices, and one order of sums."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    if "mirrored" in hows:
        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)


def main(folder, *names):
    """Do the runs; those that share a strategy in one go."""
    runs = [name.split("-") for name in names]
    if keras.backend.backend() == "tensorflow":
        prepare([how for how, _, _ in runs])
    data = load("digits")
    batches = Batches(data.train, BATCH, seed=1)
    # 180 images: the last batch has 20, so 10 for each replica.
    evaluation = EvaluationBatches(data.validation, 32, 2)
    for how in dict.fromkeys(how for how, _, _ in runs):
        workers = workers_for(how, folder)
        with workers.together():
            for _, name, method in (run for run in runs if run[0] == how):
                kind = kinds.tf_keras() if name == "tf_keras" else kinds.keras_3()
                found = train(workers, kind, method, batches, evaluation)
                path = f"{how}-{name}-{method}-{getattr(workers, 'worker', 0)}.npz"
                np.savez(os.path.join(folder, path), **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
