"""The networks that `worker` trains: float, and with every method of kerasbits."""

from __future__ import annotations

import random
from collections.abc import Callable

import keras
from networks import NETWORKS

import kerasbits as kb

_Binary = kb.LeastSquaresBinary

METHODS = {
    "float": None,
    "uniform": (kb.Uniform(4), kb.Uniform(8)),
    "bitpruning": (kb.BitPruning(), kb.BitPruning()),
    "apot": (kb.APoT(4), kb.APoT(4)),
    "ls1": (_Binary("ls1"), _Binary("ls1")),
    "gf": (_Binary("gf"), _Binary("gf")),
    "ls2": (_Binary("ls2"), _Binary("ls2")),
    "lst": (_Binary("lst"), _Binary("lst")),
    "bsq": (kb.BSQ(), kb.Uniform(8)),
    "bayesian_bits": (kb.BayesianBits(), kb.BayesianBits()),
}
"""Quantizers of all kernels and all inputs."""


def maker(kind: str, network: str, method: str) -> Callable[[bool], keras.Model]:
    """A function that builds and compiles; `jit` is whether the whole step is compiled."""

    def make(jit: bool) -> keras.Model:
        # Keras draws its seeds from here. Its own function would import TensorFlow on JAX too, and
        # that would be taken for a part of building.
        random.seed(0)
        model = NETWORKS[network]()
        if METHODS[method] is not None:
            model = kb.quantize_model(model, *METHODS[method])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer="sgd", loss=loss, jit_compile=jit)
        return model

    return make
