"""The five methods and the four networks of the acceptance tests."""

import dataclasses
import functools
import importlib
import pathlib
import sys
from collections.abc import Callable

import keras
import numpy as np
from exportable import lively_batch_norms, prune_some

import kerasbits as kb
from tflite_export import float_tflite

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))
networks = importlib.import_module("networks")
sys.path.remove(str(EXAMPLES))

METHODS = {
    "bitpruning": (kb.BitPruning(bits=3.6), kb.BitPruning(bits=5.3)),
    "least_squares_binary": (kb.LeastSquaresBinary("ls2"), kb.LeastSquaresBinary("ls2")),
    "bsq": (kb.BSQ(bits=4), kb.Uniform(4)),
    "apot": (kb.APoT(4), kb.APoT(4)),
    "bayesian_bits": (kb.BayesianBits(max_bits=8), kb.BayesianBits(max_bits=8)),
}
"""Quantizers of kernel and input of each method."""

ENDS = "^(conv1|logits)$"
"""First and last layer, which the papers of two methods keep at 8 bits."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A float model, and how many layers of it are quantized."""

    build: Callable[[], keras.Model]
    layers: int


def small_mobilenet():
    """Six inverted residuals of 16x16 images, two of them added to their inputs."""
    stages = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 2, 2), (6, 64, 1, 2))
    return networks.mobilenet_v2_small((16, 16, 3), stages=stages)


NETWORKS = {
    "lenet5": Network(networks.lenet5, 5),
    "resnet20": Network(networks.resnet20, 22),
    "mobilenet_v2_small": Network(small_mobilenet, 20),
    "two_inputs": Network(networks.two_inputs, 6),
}


@functools.cache
def float_bytes(network: str) -> int:
    """Size of the stock file of the float network; weights do not matter for it."""
    return len(float_tflite(NETWORKS[network].build()))


def samples(model, count, seed=0):
    """Random images in the range of pixels, one array for each input."""
    rng = np.random.default_rng(seed)
    shapes = [(count, *tensor.shape[1:]) for tensor in keras.tree.flatten(model.inputs)]
    return [rng.uniform(0, 1, shape).astype(np.float32) for shape in shapes]


def quantized(method: str, network: str):
    """A network quantized by a method, calibrated and frozen."""
    keras.utils.set_random_seed(0)
    model = NETWORKS[network].build()
    lively_batch_norms(model)
    tame_gammas(model)
    kernel, inputs = METHODS[method]
    at_ends = kb.Rule(kb.Uniform(8), kb.Uniform(8))
    rules = {ENDS: at_ends} if method in ("least_squares_binary", "apot") else {}
    q = kb.quantize_model(model, kernel, inputs, rules=rules, strict=True)
    data = samples(q, 16, seed=1)
    kb.calibrate(q, data[0] if len(data) == 1 else [data])
    if method == "bayesian_bits":
        prune_some(q)
    kb.adjust(q)
    kb.freeze(q)
    return q


def tame_gammas(model):
    """Gammas and variances that keep the values of a deep network within a few powers of ten."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma = np.asarray(layer.gamma)
            layer.gamma.assign(np.sign(gamma) * np.clip(np.abs(gamma), 0.3, 1.5))
