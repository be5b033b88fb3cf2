"""Networks of the examples."""

from __future__ import annotations

import functools

import keras
from keras import layers

FASHION = (28, 28, 1)
"""Shape of an image of Fashion-MNIST."""


def lenet5(classes: int = 10) -> keras.Model:
    """LeNet-5 for 28x28 images, 61,470 kernel weights; batch norm after the convolutions, ReLU."""
    return keras.Sequential(
        [
            keras.Input(FASHION),
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

    inputs = keras.Input(FASHION)
    x = layers.Conv2D(6, 5, padding="same", use_bias=False, name="conv1")(inputs)
    x = normed(layers.MaxPooling2D(name="pool1")(x), "conv1")
    x = layers.Conv2D(16, 5, use_bias=False, name="conv2")(x)
    x = normed(layers.MaxPooling2D(name="pool2")(x), "conv2")
    x = layers.Flatten(name="flatten")(x)
    x = normed(layers.Dense(120, use_bias=False, name="dense1")(x), "dense1")
    x = normed(layers.Dense(84, use_bias=False, name="dense2")(x), "dense2")
    outputs = layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, outputs, name="binary_lenet5")


def resnet20(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    width: int = 16,
    blocks: int = 3,
) -> keras.Model:
    """ResNet-20 for small images: 3 stages of residual blocks of two 3x3 convolutions.

    Where a stage halves the image and doubles the channels, the shortcut is a 1x1 convolution of
    stride 2 (option B of the paper). 270,896 kernel weights for 32x32x3 and 10 classes.

    Args:
        input_shape: rows, columns, channels.
        classes: number of outputs, logits.
        width: channels of the first stage.
        blocks: residual blocks a stage; `6 * blocks + 2` layers deep.

    Reference: He et al., arXiv 1512.03385, section 4.2.
    """

    def block(x, channels, strides, name):
        shortcut = x
        if strides > 1:
            shortcut = _normed_conv(x, channels, 1, f"{name}_shortcut", strides)
        x = _normed_conv(x, channels, 3, f"{name}_conv1", strides)
        x = layers.ReLU(name=f"{name}_relu1")(x)
        x = _normed_conv(x, channels, 3, f"{name}_conv2")
        return layers.ReLU(name=f"{name}_relu2")(layers.Add(name=f"{name}_add")([x, shortcut]))

    inputs = keras.Input(input_shape)
    x = layers.ReLU(name="relu1")(_normed_conv(inputs, width, 3, "conv1"))
    for stage in range(3):
        for index in range(blocks):
            strides = 2 if stage > 0 and index == 0 else 1
            x = block(x, width * 2**stage, strides, f"stage{stage + 1}_block{index + 1}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="resnet20")


STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 2, 2), (6, 64, 2, 2), (6, 96, 1, 1))
"""Inverted residuals of the small MobileNetV2: expansion, channels, blocks, stride of the first."""


def mobilenet_v2_small(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    alpha: float = 1.0,
    stages: tuple[tuple[int, int, int, int], ...] = STAGES,
) -> keras.Model:
    """A small MobileNetV2: inverted residuals with depthwise convolutions, batch norm, ReLU6.

    A block widens its input by a 1x1 convolution, filters each channel by a 3x3 depthwise one, and
    narrows the result by a linear 1x1 convolution; input and output are added where their shapes
    agree. The strides suit images of about 32x32 pixels.

    Args:
        input_shape: rows, columns, channels.
        classes: number of outputs, logits.
        alpha: factor of all channel numbers, which are rounded to multiples of 8.
        stages: expansion, channels, blocks, stride of each stage.

    Reference: Sandler et al., arXiv 1801.04381.
    """

    def scaled(channels):
        return max(8, int(channels * alpha + 4) // 8 * 8)

    def block(x, expansion, channels, strides, name):
        start, wide = x, x.shape[-1] * expansion
        if expansion > 1:
            x = _normed_conv(x, wide, 1, f"{name}_expand")
            x = layers.ReLU(6.0, name=f"{name}_expand_relu")(x)
        x = layers.DepthwiseConv2D(
            3, strides, padding="same", use_bias=False, name=f"{name}_depthwise"
        )(x)
        x = layers.BatchNormalization(name=f"{name}_depthwise_norm")(x)
        x = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(x)
        x = _normed_conv(x, channels, 1, f"{name}_project")
        if strides > 1 or start.shape[-1] != channels:
            return x
        return layers.Add(name=f"{name}_add")([x, start])

    inputs = keras.Input(input_shape)
    x = layers.ReLU(6.0, name="relu1")(_normed_conv(inputs, scaled(32), 3, "conv1"))
    for number, (expansion, channels, blocks, strides) in enumerate(stages, 1):
        for index in range(blocks):
            name = f"stage{number}_block{index + 1}"
            x = block(x, expansion, scaled(channels), 1 if index else strides, name)
    x = layers.ReLU(6.0, name="relu2")(_normed_conv(x, scaled(256), 1, "conv2"))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="mobilenet_v2_small")


def two_inputs(
    input_shape: tuple[int, int, int] = (16, 16, 1), classes: int = 10, width: int = 8
) -> keras.Model:
    """Two images through shared layers, joined: do they show the same, say.

    Both go through one convolution `conv1` and one dense layer `embed`; each has a convolution of
    its own between them.
    """
    inputs = [keras.Input(input_shape, name=name) for name in ("left", "right")]
    shared = layers.Conv2D(width, 3, padding="same", activation="relu", name="conv1")
    embed = layers.Dense(4 * width, activation="relu", name="embed")
    towers = []
    for name, x in zip(("left", "right"), inputs, strict=True):
        x = layers.MaxPooling2D(name=f"{name}_pool")(shared(x))
        x = layers.ReLU(name=f"{name}_relu")(_normed_conv(x, 2 * width, 3, f"{name}_conv", 2))
        towers.append(embed(layers.Flatten(name=f"{name}_flatten")(x)))
    x = layers.Concatenate(name="join")(towers)
    x = layers.Dense(4 * width, activation="relu", name="dense")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="two_inputs")


IMAGE_NETWORKS = {
    "lenet5": lenet5,
    "resnet20": functools.partial(resnet20, FASHION),
    "mobilenet_v2_small": functools.partial(mobilenet_v2_small, FASHION),
}
"""Networks for Fashion-MNIST by name."""


def _normed_conv(x, channels: int, size: int, name: str, strides: int = 1):
    """A convolution without bias and its batch norm."""
    x = layers.Conv2D(channels, size, strides, padding="same", use_bias=False, name=name)(x)
    return layers.BatchNormalization(name=f"{name}_norm")(x)
