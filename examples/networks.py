"""Networks of the examples, for Keras 3 and for tf_keras.

Each takes the Keras to build with as its last argument: `lenet5(keras=tf_keras)`. Names, order and
shapes of layers and weights are the same in both. The first layer with a kernel is `conv1`, the
last one `logits`, which has no softmax.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping

import keras

Shape = tuple[int, int, int]
Model = keras.Model  # or tf_keras.Model

FASHION = (28, 28, 1)
"""Shape of an image of Fashion-MNIST."""

CIFAR = (32, 32, 3)
"""Shape of an image of CIFAR-10."""


def lenet5(
    input_shape: Shape = FASHION, classes: int = 10, keras: types.ModuleType = keras
) -> Model:
    """LeNet-5, 61,470 kernel weights for 28x28 images; batch norm after the convolutions, ReLU.

    Images below 12x12 are padded before the second convolution too, so that something is left.

    Reference: LeCun et al., "Gradient-based learning applied to document recognition", 1998.
    """
    _check("lenet5", input_shape, classes, 4)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape, name="image"),
            layers.Conv2D(6, 5, padding="same", use_bias=False, name="conv1"),
            layers.BatchNormalization(name="norm1"),
            layers.ReLU(name="relu1"),
            layers.MaxPooling2D(name="pool1"),
            layers.Conv2D(16, 5, padding=_padding(input_shape), use_bias=False, name="conv2"),
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


def binary_lenet5(
    input_shape: Shape = FASHION, classes: int = 10, keras: types.ModuleType = keras
) -> Model:
    """LeNet-5 for binary inputs: batch norm right before each layer whose input is binarized.

    The sign of a ReLU's output would always be +1, and the maximum of four values is mostly
    positive, so the order is convolution, pooling, batch norm, clipping to [-1, 1].
    """
    _check("binary_lenet5", input_shape, classes, 4)
    layers = keras.layers

    def normed(x, name):
        x = layers.BatchNormalization(name=f"norm_{name}")(x)
        return _hard_tanh(x, f"clip_{name}", keras)

    inputs = keras.Input(input_shape, name="image")
    x = layers.Conv2D(6, 5, padding="same", use_bias=False, name="conv1")(inputs)
    x = normed(layers.MaxPooling2D(name="pool1")(x), "conv1")
    x = layers.Conv2D(16, 5, padding=_padding(input_shape), use_bias=False, name="conv2")(x)
    x = normed(layers.MaxPooling2D(name="pool2")(x), "conv2")
    x = layers.Flatten(name="flatten")(x)
    x = normed(layers.Dense(120, use_bias=False, name="dense1")(x), "dense1")
    x = normed(layers.Dense(84, use_bias=False, name="dense2")(x), "dense2")
    outputs = layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, outputs, name="binary_lenet5")


def vgg7(
    input_shape: Shape = CIFAR,
    classes: int = 10,
    width: int = 128,
    hidden: int = 1024,
    keras: types.ModuleType = keras,
) -> Model:
    """VGG-7: six 3x3 convolutions of 128, 256 and 512 channels, two dense layers; batch norm.

    Each pair of convolutions is followed by a pooling that halves the image, which must have at
    least 8x8 pixels. 12,973,440 kernel weights for 32x32x3 and 10 classes.

    Args:
        input_shape: rows, columns, channels.
        classes: number of outputs, logits.
        width: channels of the first pair.
        hidden: units of the dense layer before the last.
        keras: Keras 3 or tf_keras.

    Reference: Li, Zhang, Liu, "Ternary weight networks", arXiv 1605.04711, section 3.
    """
    _check("vgg7", input_shape, classes, 8, width=width, hidden=hidden)
    layers = keras.layers
    inputs = x = keras.Input(input_shape, name="image")
    for pair in range(3):
        for number in (2 * pair + 1, 2 * pair + 2):
            x = _normed_conv(x, width * 2**pair, 3, f"conv{number}", keras)
            x = layers.ReLU(name=f"relu{number}")(x)
        x = layers.MaxPooling2D(name=f"pool{pair + 1}")(x)
    x = layers.Dense(hidden, use_bias=False, name="dense1")(layers.Flatten(name="flatten")(x))
    x = layers.ReLU(name="relu7")(layers.BatchNormalization(name="dense1_norm")(x))
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="vgg7")


def resnet20(
    input_shape: Shape = CIFAR,
    classes: int = 10,
    width: int = 16,
    blocks: int = 3,
    keras: types.ModuleType = keras,
) -> Model:
    """ResNet-20 for small images: 3 stages of residual blocks of two 3x3 convolutions.

    Where a stage halves the image and doubles the channels, the shortcut is a 1x1 convolution of
    stride 2 (option B of the paper). 270,896 kernel weights for 32x32x3 and 10 classes.

    Args:
        input_shape: rows, columns, channels.
        classes: number of outputs, logits.
        width: channels of the first stage.
        blocks: residual blocks a stage; `6 * blocks + 2` layers deep.
        keras: Keras 3 or tf_keras.

    Reference: He et al., arXiv 1512.03385, section 4.2.
    """
    return _resnet("resnet20", input_shape, classes, width, blocks, keras)


def resnet8(
    input_shape: Shape = CIFAR,
    classes: int = 10,
    width: int = 16,
    keras: types.ModuleType = keras,
) -> Model:
    """ResNet-8: `resnet20` with one block a stage, 77,360 kernel weights for 32x32x3, 10 classes.

    The size of network that benchmarks of microcontrollers use.
    """
    return _resnet("resnet8", input_shape, classes, width, 1, keras)


def _resnet(name: str, input_shape: Shape, classes: int, width: int, blocks: int, keras) -> Model:
    _check(name, input_shape, classes, 1, width=width, blocks=blocks)
    layers = keras.layers

    def block(x, channels, strides, name):
        shortcut = x
        if strides > 1:
            shortcut = _normed_conv(x, channels, 1, f"{name}_shortcut", keras, strides)
        x = _normed_conv(x, channels, 3, f"{name}_conv1", keras, strides)
        x = layers.ReLU(name=f"{name}_relu1")(x)
        x = _normed_conv(x, channels, 3, f"{name}_conv2", keras)
        return layers.ReLU(name=f"{name}_relu2")(layers.Add(name=f"{name}_add")([x, shortcut]))

    inputs = keras.Input(input_shape, name="image")
    x = layers.ReLU(name="relu1")(_normed_conv(inputs, width, 3, "conv1", keras))
    for stage in range(3):
        for index in range(blocks):
            strides = 2 if stage > 0 and index == 0 else 1
            x = block(x, width * 2**stage, strides, f"stage{stage + 1}_block{index + 1}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name=name)


STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 2, 2), (6, 64, 2, 2), (6, 96, 1, 1))
"""Inverted residuals of the small MobileNetV2: expansion, channels, blocks, stride of the first."""


def mobilenet_v2_small(
    input_shape: Shape = CIFAR,
    classes: int = 10,
    alpha: float = 1.0,
    stages: tuple[tuple[int, int, int, int], ...] = STAGES,
    keras: types.ModuleType = keras,
) -> Model:
    """A small MobileNetV2: inverted residuals with depthwise convolutions, batch norm, ReLU6.

    A block widens its input by a 1x1 convolution, filters each channel by a 3x3 depthwise one, and
    narrows the result by a linear 1x1 convolution; input and output are added where their shapes
    agree. The strides suit images of about 32x32 pixels.

    Args:
        input_shape: rows, columns, channels.
        classes: number of outputs, logits.
        alpha: factor of all channel numbers, which are rounded to multiples of 8.
        stages: expansion, channels, blocks, stride of each stage.
        keras: Keras 3 or tf_keras.

    Reference: Sandler et al., arXiv 1801.04381.
    """
    _check_mobilenet(input_shape, classes, alpha, stages)
    layers = keras.layers

    def scaled(channels):
        return max(8, int(channels * alpha + 4) // 8 * 8)

    def block(x, expansion, channels, strides, name):
        start, wide = x, x.shape[-1] * expansion
        if expansion > 1:
            x = _normed_conv(x, wide, 1, f"{name}_expand", keras)
            x = layers.ReLU(6.0, name=f"{name}_expand_relu")(x)
        x = layers.DepthwiseConv2D(
            3, strides, padding="same", use_bias=False, name=f"{name}_depthwise"
        )(x)
        x = layers.BatchNormalization(name=f"{name}_depthwise_norm")(x)
        x = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(x)
        x = _normed_conv(x, channels, 1, f"{name}_project", keras)
        if strides > 1 or start.shape[-1] != channels:
            return x
        return layers.Add(name=f"{name}_add")([x, start])

    inputs = keras.Input(input_shape, name="image")
    x = layers.ReLU(6.0, name="relu1")(_normed_conv(inputs, scaled(32), 3, "conv1", keras))
    for number, (expansion, channels, blocks, strides) in enumerate(stages, 1):
        for index in range(blocks):
            name = f"stage{number}_block{index + 1}"
            x = block(x, expansion, scaled(channels), 1 if index else strides, name)
    x = layers.ReLU(6.0, name="relu2")(_normed_conv(x, scaled(256), 1, "conv2", keras))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="mobilenet_v2_small")


def two_inputs(
    input_shape: Shape = (16, 16, 1),
    classes: int = 10,
    width: int = 8,
    keras: types.ModuleType = keras,
) -> Model:
    """Two images through shared layers, joined: do they show the same, say.

    Both go through one convolution `conv1` and one dense layer `embed`; each has a convolution of
    its own between them.
    """
    _check("two_inputs", input_shape, classes, 2, width=width)
    layers = keras.layers
    inputs = [keras.Input(input_shape, name=name) for name in ("left", "right")]
    shared = layers.Conv2D(width, 3, padding="same", activation="relu", name="conv1")
    embed = layers.Dense(4 * width, activation="relu", name="embed")
    towers = []
    for name, x in zip(("left", "right"), inputs, strict=True):
        x = layers.MaxPooling2D(name=f"{name}_pool")(shared(x))
        x = _normed_conv(x, 2 * width, 3, f"{name}_conv", keras, 2)
        x = layers.ReLU(name=f"{name}_relu")(x)
        towers.append(embed(layers.Flatten(name=f"{name}_flatten")(x)))
    x = layers.Concatenate(name="join")(towers)
    x = layers.Dense(4 * width, activation="relu", name="dense")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="two_inputs")


NETWORKS: Mapping[str, Callable[..., Model]] = {
    "lenet5": lenet5,
    "binary_lenet5": binary_lenet5,
    "vgg7": vgg7,
    "resnet8": resnet8,
    "resnet20": resnet20,
    "mobilenet_v2_small": mobilenet_v2_small,
}
"""Networks that classify images, by name: `NETWORKS[name](input_shape, classes, keras=keras)`."""


def _normed_conv(x, channels: int, size: int, name: str, keras, strides: int = 1):
    """A convolution without bias and its batch norm."""
    conv = keras.layers.Conv2D(channels, size, strides, padding="same", use_bias=False, name=name)
    return keras.layers.BatchNormalization(name=f"{name}_norm")(conv(x))


def _hard_tanh(x, name: str, keras):
    """Clip to [-1, 1]. tf_keras has no such activation: there it is `relu(x + 1) <= 2, minus 1`."""
    if hasattr(keras.activations, "hard_tanh"):
        return keras.layers.Activation("hard_tanh", name=name)(x)
    x = keras.layers.Rescaling(1.0, 1.0, name=f"{name}_up")(x)
    x = keras.layers.ReLU(2.0, name=f"{name}_relu")(x)
    return keras.layers.Rescaling(1.0, -1.0, name=name)(x)


def _padding(input_shape: Shape) -> str:
    """Of a 5x5 convolution behind one pooling and before another."""
    return "valid" if min(input_shape[:2]) >= 12 else "same"


def _check(name: str, input_shape: Shape, classes: int, smallest: int, **sizes: int) -> None:
    """Raise ValueError unless the network exists for these images and sizes."""
    shape = tuple(input_shape)
    if len(shape) != 3 or any(type(n) is not int or n < 1 for n in shape):
        expected = "images of (rows, columns, channels)"
        raise ValueError(f"network '{name}': expected {expected}, got shape {input_shape!r}")
    if min(shape[:2]) < smallest:
        expected = f"images of at least {smallest}x{smallest} pixels"
        raise ValueError(f"network '{name}': expected {expected}, got {shape[0]}x{shape[1]}")
    for what, number in {"classes": classes, **sizes}.items():
        if type(number) is not int or number < 1:
            raise ValueError(
                f"network '{name}': expected {what} to be a whole number of at least 1, "
                f"got {number!r}"
            )


def _check_mobilenet(input_shape: Shape, classes: int, alpha: float, stages) -> None:
    name, what = "mobilenet_v2_small", ("expansion", "channels", "blocks", "stride")
    _check(name, input_shape, classes, 1)
    if not isinstance(alpha, (int, float)) or not 0 < alpha < 100:
        raise ValueError(f"network '{name}': expected 0 < alpha < 100, got {alpha!r}")
    rows = stages if isinstance(stages, (list, tuple)) else [stages]
    for row in rows:
        if not isinstance(row, (list, tuple)) or len(row) != len(what):
            raise ValueError(f"network '{name}': expected stages of {', '.join(what)}, got {row!r}")
        _check(name, input_shape, classes, 1, **dict(zip(what, row, strict=True)))
