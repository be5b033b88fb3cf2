"""Small training runs for the tests of the training program."""

import os
import pathlib
import subprocess
import sys

import keras
from example_modules import EXAMPLES, example

METHODS = ("bitpruning", "least_squares_binary", "bsq", "apot", "bayesian_bits", "uniform")
settings = example("training.settings")


def tiny_model(path, seed=3):
    """Save a network for digits that is traced and run quickly; the path."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, 2, use_bias=False, name="conv1"),
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
        "dataset": "digits",
        "batch_size": 16,
        "float_epochs": 1,
        "learn_epochs": 1,
        "tune_epochs": 1,
        "train_steps": 6,
        "checkpoint_steps": 4,
        "calibration_steps": 2,
        **changes,
    }
    return settings.Settings(str(model_dir), **values)


def program(name, *arguments, wait=True, **environment):
    """Run a program of the examples, or start it."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
    options = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "env": {
            **os.environ,
            "PYTHONPATH": str(pathlib.Path(EXAMPLES).parent),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": "tensorflow",
            **environment,
        },
    }
    if wait:
        return subprocess.run(command, timeout=300, **options)
    return subprocess.Popen(command, **options)
