"""The whole road on real images: train, quantize, learn bits, freeze, export, run the file.

Example:
    python examples/demo.py --method=bsq
"""

from __future__ import annotations

import pathlib
import time

import keras
import numpy as np
from absl import app, flags, logging
from datasets import everything, load
from networks import FASHION, NETWORKS
from recipes import RECIPES, Recipe

import kerasbits as kb
import tflite_export

FILES = (
    ("packed", "{}.tflite", {}),
    ("kbits", "{}.kbits", {}),
    ("stock", "{}_stock.tflite", {"profile": "stock"}),
    ("stock int8", "{}_int8.tflite", {"profile": "stock", "activations": "int8"}),
)
"""Kinds of files: name, path, options of the export."""


def define_flags() -> None:
    """Declare the flags of this program."""
    flags.DEFINE_enum(
        "method",
        "bitpruning",
        list(RECIPES),
        "Method that learns the bits. 'uniform' is the plain baseline; 'binary_weights' and "
        "'binary' are 1-bit weights, and 1-bit weights and inputs, by least squares.",
    )
    flags.DEFINE_enum(
        "network", None, list(NETWORKS), "Network; by default the method's own LeNet-5."
    )
    flags.DEFINE_string("data_dir", None, "Folder with the four IDX files of Fashion-MNIST.")
    flags.DEFINE_string("output", "runs/demo", "Folder for the model and the exported file.")
    flags.DEFINE_integer("float_epochs", 4, "Epochs of float training.", lower_bound=1)
    flags.DEFINE_integer("learn_epochs", 4, "Epochs in which bits are learned.", lower_bound=1)
    flags.DEFINE_integer("tune_epochs", 3, "Epochs with frozen bits.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=1)
    flags.DEFINE_float(
        "learning_rate",
        2e-3,
        "Of Adam for the float model; half of it for the quantized one.",
        lower_bound=0.0,
    )
    flags.DEFINE_integer("seed", 0, "Seed of weights and shuffling.")


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Percent of images whose largest logit is the label's."""
    return 100 * float(np.mean(np.argmax(logits, -1) == labels))


def heading(text: str) -> None:
    """Print a heading."""
    print(f"\n=== {text}", flush=True)


def fit(model: keras.Model, rate, epochs: int, train, test, callbacks=()) -> None:
    """Compile and train."""
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        *train,
        batch_size=flags.FLAGS.batch_size,
        epochs=epochs,
        verbose=0,
        validation_data=test,
        validation_batch_size=1000,
        callbacks=[*callbacks, kb.callbacks.Progress()],
    )


def decaying(rate: float, epochs: int, images: int):
    """A learning rate that falls to 0 along a cosine."""
    steps = epochs * -(-images // flags.FLAGS.batch_size)
    return keras.optimizers.schedules.CosineDecay(rate, steps)


def learn(model: keras.Model, chosen: Recipe, train, test) -> keras.Model:
    """The quantized model: bits learned, frozen, fine-tuned."""
    flag = flags.FLAGS
    q = kb.quantize_model(model, chosen.kernel, chosen.inputs, chosen.rules, strict=True)
    kb.calibrate(q, train[0][:1024])
    watch = [kb.callbacks.AdjustBits(), kb.callbacks.LogBits()]
    fit(q, flag.learning_rate / 2, flag.learn_epochs, train, test, watch)
    kb.freeze(q)
    heading("frozen; tuning the weights for the bits that were learned")
    rate = decaying(flag.learning_rate / 2, flag.tune_epochs, len(train[0]))
    fit(q, rate, flag.tune_epochs, train, test)
    return q


def main(argv: list[str]) -> None:
    """Run the demo."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    flag = flags.FLAGS
    start = time.monotonic()
    keras.utils.set_random_seed(flag.seed)
    try:
        data = load("fashion_mnist", flag.data_dir, validation=0)
        output = pathlib.Path(flag.output)
        output.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise SystemExit(f"demo: {error}") from None
    train, test = everything(data.train), everything(data.test)
    usual = "binary_lenet5" if flag.method == "binary" else "lenet5"
    model = NETWORKS[flag.network or usual](FASHION)
    heading(f"{model.name} in float, {len(train[0]):,} images of Fashion-MNIST")
    rate = decaying(flag.learning_rate, flag.float_epochs, len(train[0]))
    fit(model, rate, flag.float_epochs, train, test)
    heading(f"learning bits by {flag.method}")
    q = learn(model, RECIPES[flag.method], train, test)
    kb.summary(q)
    q.save(output / f"{flag.method}.keras")
    float_file = output / "float.tflite"
    float_file.write_bytes(tflite_export.float_tflite(model))
    float_accuracy = accuracy(model.predict(test[0], batch_size=1000, verbose=0), test[1])
    print(f"\nfloat: {float_accuracy:.2f} %, {float_file.stat().st_size:,} B")
    for kind, path, options in FILES:
        conclude(q, kind, output / path.format(flag.method), options, train, test)
    logging.info("took %.0f s", time.monotonic() - start)


def conclude(q: keras.Model, kind: str, path: pathlib.Path, options: dict, train, test) -> None:
    """Write one kind of file, run it over the test images, and print the result line."""
    heading(f"{kind}: exporting, verifying, and running the file over the test images")
    result = tflite_export.export(q, path, sample=train[0][:256], **options)
    found = tflite_export.Interpreter(path).predict(test[0])
    expected = q.predict(test[0], batch_size=1000, verbose=0)
    checked = result.verification
    print(
        f"verified: outputs within {checked.max_error:.1e} of the model's, "
        f"{checked.ties} of {checked.codes:,} input codes fell differently at rounding ties"
    )
    print(
        f"RESULT {flags.FLAGS.method}, {kind}: {accuracy(found, test[1]):.2f} %, "
        f"{result.file_bytes:,} B; {kb.report(q).average_bits:.2f} bits on average; "
        f"largest difference from Keras {np.abs(found - expected).max():.2e}, "
        f"{np.sum(found.argmax(-1) != expected.argmax(-1))} of {len(found):,} classes differ"
    )


def run() -> None:
    """Entry point."""
    define_flags()
    app.run(main)


if __name__ == "__main__":
    run()
