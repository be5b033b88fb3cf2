"""Small instances of every quantized layer, and what their exported forms compute."""

import dataclasses

import keras
import numpy as np
from keras import layers
from tiny import CLASSES

from kerasbits import layers as quantized


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer with one kernel, on samples of `shape`.

    `reduced` are the axes of its Keras kernel that feed one channel, `macs` is counted by hand.
    """

    name: str
    shape: tuple
    reduced: tuple
    macs: int
    arguments: dict

    @property
    def quantized(self):
        return getattr(quantized, f"Quant{self.name}")

    @property
    def plain(self):
        return getattr(layers, self.name)

    @property
    def ids(self):
        """Whether the inputs are whole numbers that are never quantized."""
        return self.name == "Embedding"

    def layer(self, kernel=None, inputs=None, **kwargs):
        arguments = {**self.arguments, "name": "layer", "kernel_quantizer": kernel, **kwargs}
        if not self.ids:
            arguments["input_quantizer"] = inputs
        return self.quantized(**arguments)

    def linear(self, kernel=None, **kwargs):
        """The layer without its activation."""
        return self.layer(kernel, **kwargs, **({} if self.ids else {"activation": None}))

    def inputs(self, count=3, seed=0):
        """Samples of both signs, or ids."""
        rng = np.random.default_rng(seed)
        if self.ids:
            return rng.integers(0, self.arguments["input_dim"], (count, *self.shape), np.int32)
        return rng.normal(size=(count, *self.shape)).astype(np.float32)

    def __str__(self):
        return self.name + "".join(f"-{v}" for v in self.arguments.values()).replace(" ", "")


def case(name, shape, reduced, macs, **arguments):
    if name != "Embedding" and arguments.get("use_bias", True):
        arguments["bias_initializer"] = "random_normal"
    return Case(name, shape, reduced, macs, arguments)


# fmt: off
CASES = [
    case("Dense", (6,), (0,), 24, units=4, activation="tanh"),
    case("Dense", (3, 2, 6), (0,), 6 * 24, units=4, use_bias=False),
    case("Conv1D", (9, 3), (0, 1), 7 * 36, filters=4, kernel_size=3, activation="relu"),
    case("Conv1D", (9, 3), (0, 1), 9 * 36, filters=4, kernel_size=3, padding="causal",
         dilation_rate=2),
    case("Conv1D", (9, 4), (0, 1), 5 * 24, filters=4, kernel_size=3, padding="causal",
         strides=2, groups=2),
    case("Conv2D", (8, 7, 4), (0, 1, 2), 4 * 7 * 48, filters=4, kernel_size=(3, 2),
         strides=(2, 1), padding="same", groups=2),
    case("Conv2D", (8, 7, 4), (0, 1, 2), 6 * 5 * 64, filters=4, kernel_size=2,
         dilation_rate=2, use_bias=False),
    case("DepthwiseConv1D", (9, 3), (0,), 5 * 18, kernel_size=3, depth_multiplier=2, strides=2,
         padding="same"),
    case("DepthwiseConv2D", (8, 7, 3), (0, 1), 4 * 4 * 36, kernel_size=(3, 2),
         depth_multiplier=2, strides=2, padding="same"),
    case("DepthwiseConv2D", (8, 7, 3), (0, 1), 4 * 3 * 27, kernel_size=3, dilation_rate=2,
         activation="relu", use_bias=False),
    case("Conv1DTranspose", (5, 3), (0, 2), 5 * 36, filters=4, kernel_size=3, strides=2,
         padding="same"),
    case("Conv2DTranspose", (4, 3, 2), (0, 1, 3), 12 * 72, filters=3, kernel_size=(3, 4),
         strides=2, activation="relu"),
    case("Conv2DTranspose", (4, 3, 2), (0, 1, 3), 12 * 54, filters=3, kernel_size=3,
         strides=(2, 1), padding="same", output_padding=(1, 0)),
    case("Conv2DTranspose", (4, 3, 2), (0, 1, 3), 12 * 24, filters=3, kernel_size=2,
         padding="same", dilation_rate=2),
    case("Embedding", (5,), (1,), 0, input_dim=7, output_dim=4),
]
# fmt: on


def exported_output(layer, x):
    """The layer without its activation, in NumPy, from nothing but what exporters are given."""
    kernel, geometry = layer.exported_kernel().decode(), layer.geometry()
    if geometry.op == "embedding":
        return kernel[x]
    if geometry.op == "dense":
        y = x @ kernel
    else:
        one_axis = x.ndim == 3
        y = convolved(x[:, None] if one_axis else x, kernel, geometry)
        y = y[:, 0] if one_axis else y
    bias = layer.exported_bias()
    return y if bias is None else y + bias


def convolved(x, kernel, geometry):
    """Convolution by its definition, pixel by pixel."""
    (down, right), groups = geometry.input_dilations, geometry.groups
    n, height, width, channels = x.shape
    wide = np.zeros((n, (height - 1) * down + 1, (width - 1) * right + 1, channels))
    wide[:, ::down, ::right] = x
    reach = [(k - 1) * d + 1 for k, d in zip(kernel.shape, geometry.dilations, strict=False)]
    wide = np.pad(wide, [(0, 0), *pads(wide.shape[1:3], reach, geometry), (0, 0)])
    if geometry.op == "depthwise_conv2d":
        kernel = kernel[:, :, None]
    (sh, sw), (dh, dw) = geometry.strides, geometry.dilations
    rows, columns = (wide.shape[1] - reach[0]) // sh + 1, (wide.shape[2] - reach[1]) // sw + 1
    y = np.zeros((n, rows, columns, kernel.shape[-1]))
    for i, j, g in np.ndindex(rows, columns, groups):
        seen = wide[:, i * sh : i * sh + reach[0] : dh, j * sw : j * sw + reach[1] : dw]
        ins = np.split(np.arange(channels), groups)[g]
        outs = np.split(np.arange(kernel.shape[-1]), groups)[g]
        y[:, i, j, outs] = np.einsum("nhwc,hwco->no", seen[..., ins], kernel[..., outs])
    return y


def pads(sizes, reach, geometry):
    """Zeros before and after rows and columns."""
    if geometry.padding == "valid":
        return [(0, 0), (0, 0)]
    if geometry.padding != "same":
        return list(geometry.padding)
    total = [
        max((-(-n // s) - 1) * s + r - n, 0)
        for n, s, r in zip(sizes, geometry.strides, reach, strict=True)
    ]
    return [(t // 2, t - t // 2) for t in total]


ZOO_SHAPES = ((4, 4, 4), (6,))


def zoo(kernel=None, inputs=None, seed=1):
    """A model with every quantized layer: images and ids in, classes out."""
    keras.utils.set_random_seed(seed)
    both = {"kernel_quantizer": kernel, "input_quantizer": inputs}
    image, ids = keras.Input((4, 4, 4), name="image"), keras.Input((6,), dtype="int32", name="ids")
    x = quantized.QuantConv2D(4, 2, padding="same", groups=2, **both, name="conv2d")(image)
    x = quantized.QuantDepthwiseConv2D(2, strides=2, padding="same", **both, name="depth2d")(x)
    x = layers.BatchNormalization(name="norm1")(x)  # without these, values and gradients vanish
    x = quantized.QuantSeparableConv2D(
        4, 2, padding="same", activation="tanh", **both, name="sep2d"
    )(x)
    x = quantized.QuantConv2DTranspose(3, 3, strides=2, padding="same", **both, name="up2d")(x)
    x = layers.BatchNormalization(name="norm2")(layers.Reshape((16, 3), name="sequence")(x))
    x = quantized.QuantConv1D(4, 3, padding="causal", strides=2, **both, name="conv1d")(x)
    x = quantized.QuantDepthwiseConv1D(2, strides=2, **both, name="depth1d")(x)
    x = layers.BatchNormalization(name="norm3")(x)
    x = quantized.QuantSeparableConv1D(3, 2, padding="same", **both, name="sep1d")(x)
    x = quantized.QuantConv1DTranspose(4, 2, strides=2, **both, name="up1d")(x)
    x = layers.BatchNormalization(name="norm4")(x)
    words = quantized.QuantEmbedding(9, 4, kernel_quantizer=kernel, name="words")(ids)
    x = layers.Concatenate(axis=1, name="join")([x, words])
    x = quantized.QuantEinsumDense(
        "abc,cde->abde", (None, 2, 3), bias_axes="de", activation="tanh", **both, name="heads"
    )(x)
    x = quantized.QuantEinsumDense("abcd,cde->abe", (None, 4), bias_axes="e", **both, name="out")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    x = quantized.QuantDense(CLASSES, **both, name="fc")(x)
    return keras.Model([image, ids], x, name="zoo")


ZOO_PATHS = (
    "conv2d", "depth2d", "sep2d/depthwise", "sep2d/pointwise", "up2d", "conv1d", "depth1d",
    "sep1d/depthwise", "sep1d/pointwise", "up1d", "words", "heads/core", "out/core", "fc",
)  # fmt: skip


def zoo_batch(count=8, seed=0):
    """Inputs of the zoo and labels that an image decides."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, 4, 4, 4)).astype(np.float32)
    ids = rng.integers(0, 9, (count, 6)).astype(np.int32)
    return [images, ids], images[:, 0, 0, :CLASSES].argmax(axis=-1)
