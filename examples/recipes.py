"""How each method is used in the demo: network, quantizers, exceptions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import keras
from networks import binary_lenet5, lenet5

import kerasbits as kb


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of one method.

    Args:
        kernel: quantizer of the kernels.
        rules: layers that want something else.
        inputs: quantizer of the inputs.
        network: builds the float model.
    """

    kernel: kb.Quantizer
    rules: Mapping[str, kb.Rule] = dataclasses.field(default_factory=dict)
    inputs: kb.Quantizer = dataclasses.field(default_factory=kb.Uniform)
    network: Callable[[], keras.Model] = lenet5


# The papers of least squares binary and APoT keep the first and the last layer at 8 bits.
ENDS_AT_8_BITS = {"^(conv1|logits)$": kb.Rule(kernel=kb.Uniform(8), inputs=kb.Uniform(8))}

# Channels of the last layer are the classes: none may be pruned.
LOGITS_KEPT = {
    "^logits$": kb.Rule(kernel=kb.BayesianBits(strength=0.02, prune=False), inputs=kb.Uniform(8))
}

RECIPES: Mapping[str, Recipe] = {
    "bitpruning": Recipe(kb.BitPruning(strength=0.1)),
    "least_squares_binary": Recipe(kb.LeastSquaresBinary(scheme="ls2"), ENDS_AT_8_BITS),
    "bsq": Recipe(kb.BSQ(strength=7e-3)),
    "apot": Recipe(kb.APoT(bits=4), ENDS_AT_8_BITS),
    "bayesian_bits": Recipe(kb.BayesianBits(strength=0.02), LOGITS_KEPT),
    "uniform": Recipe(kb.Uniform(bits=4)),
    "binary_weights": Recipe(kb.LeastSquaresBinary(scheme="ls1"), ENDS_AT_8_BITS),
    "binary": Recipe(
        kb.LeastSquaresBinary(scheme="ls1"),
        ENDS_AT_8_BITS,
        kb.LeastSquaresBinary(scheme="ls1"),
        binary_lenet5,
    ),
}
"""The five methods, the plain baseline, and two that go down to one bit."""
