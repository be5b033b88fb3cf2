"""Build the networks to time: float32 and int8 files of the stock converter, ours by width.

Run as a program by `python -m benchmarks`. The networks are not trained: their times do not depend
on what they learned.
"""

from __future__ import annotations

import shutil
import sys

import keras

import kerasbits as kb
from benchmarks.build_layers import samples, write_stock
from benchmarks.folders import NETWORKS, ROOT
from benchmarks.nets import NETS, Net
from tflite_export import export

sys.path.insert(0, str(ROOT / "examples"))
from networks import lenet5, mobilenet_v2_small, resnet20

_LS1, _EIGHT = kb.LeastSquaresBinary("ls1"), kb.Uniform(8)


def main() -> None:
    """Build all files; the stock ones once."""
    shutil.rmtree(NETWORKS, ignore_errors=True)
    NETWORKS.mkdir(parents=True)
    for net in NETS:
        keras.utils.set_random_seed(0)
        model = MODELS[net.key]()
        shape = (1, *model.input_shape[1:])
        write_stock(fixed_batch(model, shape), shape, net.key)
        q = quantized(net, model)
        kb.calibrate(q, samples((4, *shape[1:]), 1)[0])
        kb.freeze(q)
        for path in (net.packed, net.kbits):
            export(q, path, verify=False)


def quantized(net: Net, model: keras.Model) -> keras.Model:
    """The network with its widths inside; first and last layer have 8 bits where it is binary."""
    if net.bits > 1:
        return kb.quantize_model(model, kb.Uniform(net.bits), _EIGHT)
    careful = kb.Rule(_EIGHT, _EIGHT)
    rules = {"^(conv1|logits)$": careful, "_shortcut$": careful}
    return kb.quantize_model(model, _LS1, _LS1, rules=rules)


def fixed_batch(model: keras.Model, shape: tuple[int, ...]) -> keras.Model:
    """The model for one sample: XNNPACK takes only shapes that are known."""
    inputs = keras.Input(shape[1:], batch_size=shape[0])
    return keras.Model(inputs, model(inputs), name=model.name)


def residual_of_single_convolutions() -> keras.Model:
    """A ResNet-20 whose 18 convolutions each have a shortcut, without ReLU: the form that works
    with binary inputs, where a sign follows the sum.

    A shortcut that shrinks is an average pooling and a 1x1 convolution.

    Reference: Liu et al., "Bi-Real Net", arXiv 1808.00278.
    """
    layers = keras.layers
    inputs = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="conv1")(inputs)
    x = layers.BatchNormalization(name="conv1_norm")(x)
    for stage in range(3):
        channels = 16 << stage
        for number in range(6):
            name, strides = f"stage{stage + 1}_conv{number + 1}", 1
            shortcut = x
            if stage > 0 and number == 0:
                strides, short = 2, f"{name}_shortcut"
                shortcut = layers.AveragePooling2D(2, name=f"{name}_pool")(x)
                shortcut = layers.Conv2D(channels, 1, use_bias=False, name=short)(shortcut)
                shortcut = layers.BatchNormalization(name=f"{short}_norm")(shortcut)
            conv = layers.Conv2D(channels, 3, strides, padding="same", use_bias=False, name=name)
            x = layers.BatchNormalization(name=f"{name}_norm")(conv(x))
            x = layers.Add(name=f"{name}_add")([x, shortcut])
    x = layers.GlobalAveragePooling2D(name="pool")(layers.ReLU(name="relu")(x))
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="binary_resnet20")


MODELS = {
    "resnet20": resnet20,
    "mobilenet-v2": mobilenet_v2_small,
    "lenet5": lenet5,
    "binary-resnet20": residual_of_single_convolutions,
}

if __name__ == "__main__":
    main()
