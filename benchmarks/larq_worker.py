"""Runs in the environment of Larq Compute Engine: builds its files, and bursts of their runs.

    python larq_worker.py build FOLDER        writes what is missing of the files
    python larq_worker.py serve               answers bursts, a line each

A request of `serve` is a JSON line {"file": path, "calls": n}; the answer is one with the seconds
"wall" and "cpu", or with an "error".
"""

import json
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import larq
import larq_compute_engine
import numpy as np
import tensorflow as tf
from larq_compute_engine.tflite.python.interpreter import Interpreter

CONVOLUTIONS = ((64, 56), (128, 28), (256, 14), (512, 7))
layers = tf.keras.layers


def build(folder):
    """Write the files that are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    makers = {f"conv-{c}-{size}": lambda c=c, size=size: conv(c, size) for c, size in CONVOLUTIONS}
    makers["binary-resnet20"] = binary_resnet20
    for name, make in makers.items():
        path = folder / f"{name}.tflite"
        if not path.is_file():
            data = larq_compute_engine.convert_keras_model(make())
            whole = path.with_suffix(".part")
            whole.write_bytes(data)
            whole.replace(path)


def binary_conv(x, channels, strides=1):
    """A 3x3 convolution of signs. Padding with ones is the one that its kernels are fast with."""
    return larq.layers.QuantConv2D(
        channels,
        3,
        strides,
        padding="same",
        pad_values=1.0,
        input_quantizer="ste_sign",
        kernel_quantizer="ste_sign",
        kernel_constraint="weight_clip",
        use_bias=False,
    )(x)


def conv(channels, size):
    """One binary convolution with a batch norm, floats in and out."""
    inputs = layers.Input((size, size, channels), batch_size=1)
    outputs = layers.BatchNormalization()(binary_conv(inputs, channels))
    return tf.keras.Model(inputs, outputs)


def binary_resnet20():
    """The network of build_networks.py, with the layers of Larq."""
    inputs = layers.Input((32, 32, 3), batch_size=1)
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
    x = layers.BatchNormalization()(x)
    for stage in range(3):
        channels = 16 << stage
        for number in range(6):
            strides = 2 if stage > 0 and number == 0 else 1
            shortcut = x
            if strides > 1:
                shortcut = layers.AveragePooling2D(2)(x)
                shortcut = layers.Conv2D(channels, 1, use_bias=False)(shortcut)
                shortcut = layers.BatchNormalization()(shortcut)
            x = layers.BatchNormalization()(binary_conv(x, channels, strides))
            x = layers.Add()([x, shortcut])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return tf.keras.Model(inputs, layers.Dense(10)(x))


class Bursts:
    """Runs files; each is opened once."""

    def __init__(self):
        self.opened = {}

    def run(self, path, calls):
        """Seconds of so many runs, after one that is not counted."""
        if path not in self.opened:
            data = pathlib.Path(path).read_bytes()
            interpreter = Interpreter(data, num_threads=1, use_indirect_bgemm=True)
            shape = interpreter.input_shapes[0]
            x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
            # Below `predict`, which collects batches: the call that copies in, runs and copies out.
            self.opened[path] = interpreter.interpreter.predict, [x]
        predict, inputs = self.opened[path]
        predict(inputs)
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(calls):
            predict(inputs)
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def serve(requests, answers):
    """Answer until the requests end."""
    bursts = Bursts()
    for line in requests:
        request = json.loads(line)
        try:
            answer = bursts.run(request["file"], request["calls"])
        except (OSError, RuntimeError, ValueError) as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(pathlib.Path(sys.argv[2]))
    else:
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print is no answer
        serve(sys.stdin, answers)
