"""Small frozen models for the tests of the exporter."""

import keras
import numpy as np

import kerasbits as kb

SHAPE = (9, 9, 3)

PAIRS = {
    **{f"uniform{b}": (kb.Uniform(b), kb.Uniform(8)) for b in range(2, 9)},
    "uniform_few_bit_inputs": (kb.Uniform(4, granularity="channel"), kb.Uniform(3)),
    "bitpruning": (kb.BitPruning(bits=3.4), kb.BitPruning(bits=4.2)),
    "bitpruning_one_bit": (kb.BitPruning(bits=1.0), kb.BitPruning(bits=1.0)),
    "bitpruning_channels": (kb.BitPruning(bits=5.0, granularity="channel"), kb.Uniform(6)),
    "ls1": (kb.LeastSquaresBinary("ls1"), kb.LeastSquaresBinary("ls1")),
    "ls2": (kb.LeastSquaresBinary("ls2"), kb.LeastSquaresBinary("ls2")),
    "lst": (kb.LeastSquaresBinary("lst"), kb.LeastSquaresBinary("lst")),
    "gf3": (kb.LeastSquaresBinary("gf", k=3), kb.Uniform(8)),
    "gf4_inputs": (kb.Uniform(4), kb.LeastSquaresBinary("gf", k=4)),
    "bsq": (kb.BSQ(bits=4), kb.Uniform(8)),
    "bsq_nine_bit_codes": (kb.BSQ(bits=8), kb.Uniform(8)),
    "apot3": (kb.APoT(3), kb.APoT(3)),
    "apot4": (kb.APoT(4), kb.APoT(4)),
    "apot8": (kb.APoT(8), kb.APoT(8)),
    "bayesian_bits": (kb.BayesianBits(max_bits=8), kb.BayesianBits(max_bits=8)),
    "bayesian_bits_16": (kb.BayesianBits(max_bits=16), kb.BayesianBits(max_bits=16)),
    "bayesian_bits_float": (kb.BayesianBits(max_bits=32), kb.BayesianBits(max_bits=32)),
    "float_inputs": (kb.Uniform(5), None),
    "float_kernels": (None, kb.Uniform(6)),
}
"""Quantizers of kernel and input: all methods, every width, every encoding."""


def images(count=6, shape=SHAPE, seed=0):
    """Random inputs of both signs."""
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def network(seed=0):
    """SAME and VALID, strides, dilation, folded batch norm, a branch, every fused activation."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="first")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = start = layers.ReLU()(x)
    x = layers.Conv2D(8, 3, padding="same", dilation_rate=2, name="dilated")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(scale=False, name="norm2")(x))
    x = layers.Conv2D(6, (3, 2), strides=(1, 2), activation="relu", name="valid")(x + start)
    x = layers.Dense(12, activation="tanh", name="hidden")(layers.Flatten()(x))
    outputs = layers.Dense(5, activation="softmax", name="last")(x)
    model = keras.Model(inputs, outputs, name="network")
    lively_batch_norms(model)
    return model


def lively_batch_norms(model, seed=3):
    """Statistics that are not 0 and 1, and gammas of both signs."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for weight in layer.weights:
                kind = weight.name.rpartition("/")[2]
                spread = rng.normal(size=weight.shape)
                positive = kind == "moving_variance"
                weight.assign(np.abs(spread) + 0.3 if positive else spread + 0.1)


def frozen(model, kernel, inputs, data=None, **kwargs):
    """The model quantized, calibrated and frozen.

    Binary inputs go where values have both signs: behind a ReLU the first sign is always +1, and
    an untrained network would give the same output for every sample.
    """
    if isinstance(inputs, kb.LeastSquaresBinary):
        kwargs = {"rules": {"^(first|last)$": kb.Rule(kernel, inputs)}, **kwargs}
        inputs = kb.Uniform(8)
    q = kb.quantize_model(model, kernel, inputs, **kwargs)
    kb.calibrate(q, images(16, seed=1) if data is None else data)
    if isinstance(kernel, kb.BayesianBits):
        prune_some(q)
    kb.adjust(q)
    kb.freeze(q)
    return q


def prune_some(q):
    """Close the gates of every third channel, as training would."""
    for layer in q.layers:
        host = getattr(layer, "hosts", {}).get("kernel")
        if host is not None and "phi_prune" in host.state():
            phi = host.state()["phi_prune"]
            host.assign({"phi_prune": np.where(np.arange(len(phi)) % 3 == 1, -4.0, phi)})
