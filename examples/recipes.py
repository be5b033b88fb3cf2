"""How each method is used: quantizers with settings that work, and layers to be careful with."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import kerasbits as kb

METHODS: Mapping[str, kb.Quantizer] = {
    "bitpruning": kb.BitPruning(strength=0.1),
    "least_squares_binary": kb.LeastSquaresBinary(scheme="ls2"),
    "bsq": kb.BSQ(strength=7e-3),
    "apot": kb.APoT(bits=4),
    "bayesian_bits": kb.BayesianBits(strength=0.02),
    "uniform": kb.Uniform(bits=4),
}
"""Quantizers of kernels by name of the method, with settings that suit a few epochs."""

INPUT_METHODS: Mapping[str, kb.Quantizer] = {
    "uniform": kb.Uniform(bits=8),
    "bitpruning": kb.BitPruning(strength=0.1),
    "least_squares_binary": kb.LeastSquaresBinary(scheme="ls1"),
    "apot": kb.APoT(bits=4),
    "bayesian_bits": kb.BayesianBits(strength=0.02),
}
"""Quantizers of inputs by name of the method. BSQ trains the bits of weights only."""

ENDS = ("conv1", "logits")
"""Paths of the first and the last layer in the networks of the examples."""

COARSE = (kb.LeastSquaresBinary, kb.APoT)
"""Methods whose papers keep the first and the last layer at 8 bits."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The arguments of `quantize_model`.

    Args:
        kernel: quantizer of the kernels.
        inputs: quantizer of the inputs, None for float.
        rules: layers that want something else.
    """

    kernel: kb.Quantizer
    inputs: kb.Quantizer | None = dataclasses.field(default_factory=kb.Uniform)
    rules: Mapping[str, kb.Rule | None] = dataclasses.field(default_factory=dict)


def careful(
    kernel: kb.Quantizer, inputs: kb.Quantizer | None = INPUT_METHODS["uniform"], ends=ENDS
) -> Recipe:
    """These quantizers, with the exceptions that their papers make for first and last layer.

    Args:
        kernel: quantizer of the kernels.
        inputs: quantizer of the inputs, None for float.
        ends: paths of the first and the last layer.
    """
    usual = kb.Rule(kernel, inputs)
    first = kb.Rule(_fine(kernel), _fine(inputs))
    last = first
    if isinstance(kernel, kb.BayesianBits):
        # Channels of the last layer are the classes: none may be pruned.
        last = kb.Rule(dataclasses.replace(kernel, prune=False), first.inputs)
    # In this order: a network of one layer has that as its last, which says more.
    rules = {f"^{re.escape(path)}$": r for path, r in zip(ends, (first, last), strict=True)}
    return Recipe(kernel, inputs, {path: rule for path, rule in rules.items() if rule != usual})


def _fine(quantizer: kb.Quantizer | None) -> kb.Quantizer | None:
    return kb.Uniform(8) if isinstance(quantizer, COARSE) else quantizer


LS1 = kb.LeastSquaresBinary(scheme="ls1")

RECIPES: Mapping[str, Recipe] = {
    **{name: careful(kernel) for name, kernel in METHODS.items()},
    "binary_weights": careful(LS1),
    "binary": careful(LS1, LS1),
}
"""The five methods, the plain baseline, and two that go down to one bit."""
