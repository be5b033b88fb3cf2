"""Small training runs for the tests of the training program, and ways to stop them.

As a program it trains in a process of its own, on another backend or with tf_keras:

    python tests/training_runs.py tf_keras FOLDER METHOD...

For each method it prints the checksums of an unbroken run and of one that was stopped twice.
"""

import contextlib
import json
import pathlib
import random
import subprocess
import sys
from collections.abc import Iterator

import keras
import pytest
from example_modules import EXAMPLES, example

METHODS = ("bitpruning", "least_squares_binary", "bsq", "apot", "bayesian_bits", "uniform")
STEPS = 6
"""Of a small run that starts from a trained model: half of them learn, half of them tune."""

settings = example("training.settings")
running = example("training.running")
watching = example("training.watching")


class Stop(BaseException):
    """In place of the signal that ends a process: nothing may catch it."""


def tiny_model(path, seed=3, filters=4, keras=keras):
    """Save a network for digits that is traced and run quickly; the path."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(filters, 3, 2, use_bias=False, name="conv1"),
            layers.BatchNormalization(name="norm1"),
            layers.ReLU(name="relu1"),
            layers.Flatten(name="flatten"),
            layers.Dense(10, name="logits"),
        ],
        name="tiny",
    )
    model.save(path)
    return str(path)


def small(model_dir, **changes):
    """Settings of a run of a few steps on digits; `network` or `init_from` come from `changes`."""
    values = {
        "mode": "train",
        "dataset": "digits",
        "batch_size": 16,
        "float_epochs": 1,
        "learn_epochs": 1,
        "tune_epochs": 1,
        "train_steps": STEPS // 2,
        "checkpoint_steps": 2,
        "calibration_steps": 2,
        **changes,
    }
    return settings.Settings(str(model_dir), **values)


def run(kind, settings, lines=None):
    """The outcome of a run; what it says goes to `lines`."""
    return running.run(kind, settings, say=[].append if lines is None else lines.append)


@contextlib.contextmanager
def stopped(owner, name, instead) -> Iterator[None]:
    """Put something in the place of a function that then has to stop what is inside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, instead)
        try:
            yield
        except Stop:
            return
    raise AssertionError(f"ended before it was stopped in {name}")


@contextlib.contextmanager
def stopped_after(steps) -> Iterator[None]:
    """Stop at the end of a step, after its checkpoint if it has one."""
    original = watching.Broken.on_train_batch_end
    seen = []

    def counted(self, batch, logs=None):
        original(self, batch, logs)
        seen.append(batch)
        if len(seen) == steps:
            raise Stop

    with stopped(watching.Broken, "on_train_batch_end", counted):
        yield


@contextlib.contextmanager
def stopped_in(module, name, call=1, after=False) -> Iterator[None]:
    """Stop before (or after) a call of a function."""
    original = getattr(module, name)
    calls = []

    def counted(*arguments, **options):
        calls.append(name)
        if len(calls) == call and not after:
            raise Stop
        result = original(*arguments, **options)
        if len(calls) == call:
            raise Stop
        return result

    with stopped(module, name, counted):
        yield


def stopped_twice(kind, settings, seed):
    """The outcome of a run that is stopped after two random steps."""
    chance = random.Random(seed)
    first = chance.randint(1, STEPS - 1)
    with stopped_after(first):
        run(kind, settings)
    with stopped_after(chance.randint(1, STEPS - first)):
        run(kind, settings)
    return run(kind, settings)


def in_process(kind, folder, *methods, **environment):
    """What this file prints as a program: {method: [checksum, checksum]}."""
    root = pathlib.Path(EXAMPLES).parent
    done = subprocess.run(
        [sys.executable, __file__, kind, str(folder), *methods],
        env={"PATH": "", "PYTHONPATH": f"{root}:{root / 'tests'}", "TF_CPP_MIN_LOG_LEVEL": "3",
             "KERAS_BACKEND": "tensorflow", **environment},
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def main(name, folder, *methods):
    """Print the checksums."""
    kind = getattr(example("training.kinds"), name)()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.run_functions_eagerly(True)
    home = pathlib.Path(folder)
    start = tiny_model(home / "tiny.keras", keras=kind.keras)
    found = {}
    for method in methods:
        whole = run(kind, small(home / f"{method}-whole", init_from=start, method=method))
        broken = small(home / f"{method}-broken", init_from=start, method=method)
        ended = stopped_twice(kind, broken, seed=method)
        found[method] = [whole.weights_sha256, ended.weights_sha256]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
