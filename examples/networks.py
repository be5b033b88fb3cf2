"""Networks of the examples."""

from __future__ import annotations

import keras
from keras import layers


def lenet5(classes: int = 10) -> keras.Model:
    """LeNet-5 for 28x28 images, 61,470 kernel weights; batch norm after the convolutions, ReLU."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(6, 5, padding="same", use_bias=False, name="conv1"),
            layers.BatchNormalization(name="norm1"),
            layers.ReLU(name="relu1"),
            layers.MaxPooling2D(name="pool1"),
            layers.Conv2D(16, 5, use_bias=False, name="conv2"),
            layers.BatchNormalization(name="norm2"),
            layers.ReLU(name="relu2"),
            layers.MaxPooling2D(name="pool2"),
            layers.Flatten(name="flatten"),
            layers.Dense(120, activation="relu", name="dense1"),
            layers.Dense(84, activation="relu", name="dense2"),
            layers.Dense(classes, name="logits"),
        ],
        name="lenet5",
    )


def binary_lenet5(classes: int = 10) -> keras.Model:
    """LeNet-5 for binary inputs: batch norm right before each layer whose input is binarized.

    The sign of a ReLU's output would always be +1, and the maximum of four values is mostly
    positive, so the order is convolution, pooling, batch norm, clipping to [-1, 1].
    """

    def normed(x, name):
        x = layers.BatchNormalization(name=f"norm_{name}")(x)
        return layers.Activation("hard_tanh", name=f"clip_{name}")(x)

    inputs = keras.Input((28, 28, 1))
    x = layers.Conv2D(6, 5, padding="same", use_bias=False, name="conv1")(inputs)
    x = normed(layers.MaxPooling2D(name="pool1")(x), "conv1")
    x = layers.Conv2D(16, 5, use_bias=False, name="conv2")(x)
    x = normed(layers.MaxPooling2D(name="pool2")(x), "conv2")
    x = layers.Flatten(name="flatten")(x)
    x = normed(layers.Dense(120, use_bias=False, name="dense1")(x), "dense1")
    x = normed(layers.Dense(84, use_bias=False, name="dense2")(x), "dense2")
    outputs = layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, outputs, name="binary_lenet5")
