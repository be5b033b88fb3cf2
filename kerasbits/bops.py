"""Bit operations: what a network costs in multiplications of single bits.

A product of an m-bit and an n-bit number counts m * n bit operations. NumPy only; the records
come from `kerasbits.report`.

Reference: van Baalen et al., "Bayesian Bits", NeurIPS 2020, arXiv 2005.07093, appendix on BOPs;
keep fractions as in the authors' code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

REFERENCE_BITS = 32
"""Width of weights and inputs of the network that relative counts are relative to."""


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """One layer with weights.

    Args:
        macs: multiply-accumulates a sample, bias not counted:
            `C_out * H_out * W_out * k_h * k_w * C_in / groups`, or `in * out` for dense layers.
        weight_bits: mean bits of the weights that are kept.
        input_bits: bits of the layer's input; 8 for the image a network starts with.
        keep_out: fraction of output channels that are kept.
        keep_in: fraction of input channels that are kept, that is `keep_out` of the layer
            before (a flatten in between changes nothing); 1 if unknown.

    Raises:
        ValueError: a negative count or width, or a fraction outside [0, 1].
    """

    macs: float
    weight_bits: float
    input_bits: float
    keep_out: float = 1.0
    keep_in: float = 1.0

    def __post_init__(self):
        for field in ("macs", "weight_bits", "input_bits"):
            value = getattr(self, field)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"LayerCost: expected {field} >= 0, got {value!r}")
        for field in ("keep_out", "keep_in"):
            value = getattr(self, field)
            if not 0 <= value <= 1:
                raise ValueError(f"LayerCost: expected {field} in [0, 1], got {value!r}")

    @classmethod
    def from_channels(
        cls, macs: float, channel_bits: Sequence[float], input_bits: float, keep_in: float = 1.0
    ) -> LayerCost:
        """From the bits of each output channel, 0 for a dropped one.

        Args:
            macs, input_bits, keep_in: as in the class.
            channel_bits: (C,) or (1,), bits of the weights of each output channel.
        """
        bits = np.atleast_1d(np.asarray(channel_bits, np.float64))
        kept = bits[bits > 0]
        mean = float(kept.mean()) if kept.size else 0.0
        return cls(macs, mean, input_bits, kept.size / bits.size, keep_in)

    @property
    def bops(self) -> float:
        """Formula: `macs * weight_bits * input_bits * keep_out * keep_in`."""
        return self.kept_macs * self.weight_bits * self.input_bits

    @property
    def kept_macs(self) -> float:
        """Multiply-accumulates between kept channels."""
        return self.macs * self.keep_out * self.keep_in


@dataclasses.dataclass(frozen=True)
class RelativeBops:
    """Bit operations in percent of those of the same network in 32 bits, unpruned.

    Args:
        joint: the count with both savings.
        bits_alone: the same widths with all channels kept.
        pruning_alone: the same channels with all widths at 32 bits.
    """

    joint: float
    bits_alone: float
    pruning_alone: float


def bops(layers: Iterable[LayerCost]) -> float:
    """Bit operations of a network, for one sample.

    Formula: `sum over layers of macs * weight_bits * input_bits * keep_out * keep_in`.

    Example:
        >>> bops([LayerCost(macs=1000, weight_bits=2, input_bits=8, keep_out=0.5)])
        8000.0
    """
    return float(sum(layer.bops for layer in layers))


def relative_bops(layers: Iterable[LayerCost]) -> RelativeBops:
    """Bit operations relative to the float network, with the two kinds of savings told apart.

    Formula: `100 * bops / sum over layers of macs * 32 * 32`. A network without
    multiplications costs what its float form costs, 100 percent.
    """
    layers = list(layers)
    macs = sum(layer.macs for layer in layers)
    if macs == 0:
        return RelativeBops(100.0, 100.0, 100.0)
    dense = [dataclasses.replace(layer, keep_out=1.0, keep_in=1.0) for layer in layers]
    reference = macs * REFERENCE_BITS**2
    return RelativeBops(
        joint=100 * bops(layers) / reference,
        bits_alone=100 * bops(dense) / reference,
        pruning_alone=100 * float(sum(layer.kept_macs for layer in layers)) / macs,
    )
