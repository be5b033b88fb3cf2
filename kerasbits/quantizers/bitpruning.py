"""BitPruning: learn a real number of bits for each tensor or channel."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from kerasbits import packed, replicas
from kerasbits.maths import bitpruning as maths
from kerasbits.quantizers.base import (
    NOT_FROZEN,
    Quantizer,
    Site,
    State,
    Updates,
    VariableSpec,
)
from kerasbits.quantizers.checks import (
    check_choice,
    check_number,
    check_rate,
    check_whole,
    finite_kernel,
)
from kerasbits.quantizers.ranges import along_channels, check_observed

DECAY = 0.99
"""Memory of the moving average of an input's ends, a batch."""


@keras.saving.register_keras_serializable(package="kerasbits")
@dataclasses.dataclass(frozen=True)
class BitPruning(Quantizer):
    """Learn a real bitlength n by gradient descent, together with the weights.

    Formula: `Q(v, n) = (1 - a) Q(v, b) + a Q(v, b + 1)`, `b = floor(n)`, `a = n - b`, where
    `Q(v, b)` rounds to `2^b` even levels from the smallest to the largest value. The loss gains
    `strength * sum_i share_i * n_i`, where the shares of the network sum to 1. `freeze` makes the
    bits whole and removes that loss.

    Gradient: `dQ/dv = 1` in the range, 0 where an input is clipped; `dQ/dn = Q(v, b+1) - Q(v, b)`.

    State: `bits` (trainable), `fixed_bits` (-1 until frozen); inputs also `lo`, `hi`, `seen`.

    Args:
        bits: initial bits, 1..max_bits.
        strength: pull on the bits, loss per bit; try 0.1, 0.3, 1, 3.
        cost: what the mean of the bits counts: "average" every tensor alike, "macs" by
            multiplications, "footprint" by elements (inputs: of one sample).
        granularity: one n a "tensor", or one for each output "channel" of a kernel.
        max_bits: longest bitlength, 2..16.
        rate: learning rate of n relative to that of the weights, a power of two.
        range_mode: inputs: "ema" quantizes the batch's own range in training and an average of
            such ranges (decay 0.99) in inference; "fixed" always takes the range of `calibrate`
            or of the first batch; "batch" always the batch's own (cannot be exported).
        rounding: how `freeze` makes n whole: "ceil" or "round".
        zero_point: "real" puts levels exactly at both ends (0 is then no level in general),
            "integer" moves them by less than a step so that 0 is a level, as integer runtimes
            want it.

    Raises:
        ValueError: a field out of its range.

    Example:
        QuantDense(10, kernel_quantizer=BitPruning(strength=0.3))

    Reference: Nikolić et al., arXiv 2002.03090.
    """

    shapeless: ClassVar[bool] = True

    bits: float = 8.0
    strength: float = 0.1
    cost: str = "average"
    granularity: str = "tensor"
    max_bits: int = 16
    rate: float = 16.0
    range_mode: str = "ema"
    rounding: str = "ceil"
    zero_point: str = "real"

    def __post_init__(self):
        check_whole("BitPruning", "max_bits", self.max_bits, 2, packed.MAX_CODE_BITS)
        check_number("BitPruning", "bits", self.bits, 1, self.max_bits)
        check_number("BitPruning", "strength", self.strength, low=0)
        check_choice("BitPruning", "cost", self.cost, ("average", "macs", "footprint"))
        check_choice("BitPruning", "granularity", self.granularity, ("tensor", "channel"))
        check_choice("BitPruning", "range_mode", self.range_mode, ("ema", "batch", "fixed"))
        check_choice("BitPruning", "rounding", self.rounding, ("ceil", "round"))
        check_choice("BitPruning", "zero_point", self.zero_point, ("real", "integer"))
        check_rate("BitPruning", self.rate)

    def variables(self, site: Site) -> dict[str, VariableSpec]:
        """`bits`, `fixed_bits`, and for inputs with a stored range `lo`, `hi`, `seen`.

        Raises:
            ValueError: an empty kernel, or granularity "channel" for an input.
        """
        kernel = site.role == "kernel"
        if kernel and site.size == 0:
            raise site.error("a kernel with at least one element", f"shape {site.shape}")
        if not kernel and self.granularity == "channel":
            raise site.error("granularity 'tensor', as an input has one scale", "'channel'")
        shape = (site.channels,) if self.granularity == "channel" else ()
        specs = {
            "bits": VariableSpec(
                shape, float(self.bits), min=1.0, max=float(self.max_bits), rate=self.rate
            ),
            "fixed_bits": VariableSpec(shape, NOT_FROZEN, trainable=False),
        }
        for name in self.observed(site):
            specs[name] = VariableSpec((), 0.0, trainable=False)
        return specs

    def quantize(self, x, state: State, site: Site, training: bool = False, seed=None):
        """Quantize at the current bits; in training with "ema" also the new average range."""
        x = ops.convert_to_tensor(x)
        lo, hi = self._range(x, state, site, training)
        updates = {}
        if training and site.role == "input" and self.range_mode == "ema":
            updates = _averaged(state, lo, hi)
        lo, hi = self._ends(lo, hi)
        n = _current(state, x.dtype)
        n = along_channels(n, site) if site.role == "kernel" else n
        clips = not self._own_range(site, training)
        return maths.quantize(x, n, lo, hi, self.max_bits, self._whole_zero, clips), updates

    @property
    def _whole_zero(self) -> bool:
        return self.zero_point == "integer"

    def _own_range(self, site: Site, training: bool) -> bool:
        """Whether the range is that of the very tensor, so that nothing is clipped."""
        if site.role == "kernel" or self.range_mode == "batch":
            return True
        return training and self.range_mode == "ema"

    def _range(self, x, state: State, site: Site, training: bool):
        """Ends of the grid before 0 is included, broadcastable to `x`."""
        if site.role == "kernel":
            return maths.data_range(x, site.reduced_axes if self.granularity == "channel" else None)
        if self._own_range(site, training):
            return _batch_range(x)
        return ops.cast(state["lo"], x.dtype), ops.cast(state["hi"], x.dtype)

    def loss(self, state: State, site: Site):
        """`strength * share * mean over groups of n`, 0 once frozen."""
        n = ops.convert_to_tensor(state["bits"])
        groups = math.prod(n.shape)
        cost = maths.regularizer(n, site.share / groups, self.strength, self.max_bits)
        # All groups freeze together; the choice also cuts the gradient.
        frozen = ops.max(ops.cast(state["fixed_bits"], n.dtype)) >= 0
        return ops.where(frozen, ops.zeros_like(cost), cost)

    def widths(self, state: State, site: Site):
        """Real bits while training, whole bits once frozen; () or (C,)."""
        n = ops.stop_gradient(_current(state, "float32"))
        return maths.effective_bits(n, self.max_bits)

    def observe(self, x, state: State, site: Site) -> Updates:
        """Smallest and largest value observed, from the batch alone while nothing was.

        A batch with NaN or infinity changes nothing; one of zeros sets no range that lasts.
        """
        if not self.observed(site):
            return {}
        x = ops.stop_gradient(ops.convert_to_tensor(x))
        lo, hi, seen = (ops.cast(state[name], x.dtype) for name in ("lo", "hi", "seen"))
        low, high = maths.data_range(x)
        broken = ops.cast(ops.any(ops.logical_not(ops.isfinite(x))), x.dtype)
        filled = ops.cast(ops.any(x != 0), x.dtype)
        low, high, broken, filled = replicas.largest(-low, high, broken, filled)
        low, finite, known = -low, broken < 0.5, seen > 0.5
        useful = ops.logical_and(finite, filled > 0.5)
        return {
            "lo": ops.where(finite, ops.where(known, ops.minimum(lo, low), low), lo),
            "hi": ops.where(finite, ops.where(known, ops.maximum(hi, high), high), hi),
            "seen": ops.where(useful, ops.ones_like(seen), seen),
        }

    def observed(self, site: Site) -> list[str]:
        """The stored range of an input."""
        stored = site.role == "input" and self.range_mode != "batch"
        return ["hi", "lo", "seen"] if stored else []

    def freeze(self, state: State, site: Site) -> Updates:
        """Whole bits, as `rounding` says; bits that are fixed stay.

        Raises:
            ValueError: the learned bits are NaN.
        """
        bits = np.asarray(state["bits"], np.float32)
        fixed = np.asarray(state["fixed_bits"], np.float32)
        if np.isnan(bits).any():
            raise site.error("learned bits that are numbers", "NaN (training diverged)")
        chosen = maths.select_bits(ops.convert_to_tensor(bits), self.max_bits, self.rounding)
        return {"fixed_bits": np.where(fixed >= 0, fixed, ops.convert_to_numpy(chosen))}

    def share(self, site: Site, sites: Sequence[Site]) -> float:
        """Part of the network's cost, by `cost`; equal parts if nothing can be counted."""
        weigh = {
            "average": lambda s: 1.0,
            "macs": lambda s: float(s.macs),
            "footprint": lambda s: float(s.size),
        }[self.cost]
        total = sum(weigh(s) for s in sites)
        return weigh(site) / total if total > 0 else 1.0 / max(1, len(sites))

    def encode(self, w: np.ndarray, state: State, site: Site) -> packed.PackedTensor:
        """Codes of the frozen kernel, from its smallest to its largest value.

        Raises:
            ValueError: bits that are not whole (not frozen), NaN or infinity in the kernel.
        """
        bits = self._whole_bits(state, site)
        w = ops.convert_to_tensor(finite_kernel(w, site))
        lo, hi = self._ends(*self._range(w, state, site, training=False))
        n = along_channels(ops.convert_to_tensor(bits), site)
        scale = _flat(maths.step_size(n, lo, hi))
        zero, origin = np.zeros(scale.shape), np.broadcast_to(_flat(lo), scale.shape)
        if self._whole_zero:
            zero, origin = _flat(maths.zero_point(n, lo, hi)), np.zeros(scale.shape)
        codes = ops.convert_to_numpy(maths.codes(w, n, lo, hi, self._whole_zero))
        return packed.PackedTensor(
            name=site.name,
            codes=codes.astype(np.uint16),
            bits=np.broadcast_to(bits, site.channels).astype(np.int32),
            channel_axis=site.channel_axis % len(site.shape),
            encoding=packed.Uniform(
                scale=packed.frozen_copy(scale, np.float32),
                zero=packed.frozen_copy(zero, np.int32),
                origin=packed.frozen_copy(origin, np.float32),
            ),
        )

    def _ends(self, lo, hi):
        return maths.include_zero(lo, hi) if self._whole_zero else (lo, hi)

    def _whole_bits(self, state: State, site: Site) -> np.ndarray:
        bits = np.asarray(ops.convert_to_numpy(self.widths(state, site)), np.float32)
        if not np.array_equal(bits, np.round(bits)):
            raise site.error("whole bits (call kerasbits.freeze first)", np.unique(bits))
        return bits

    def grid(self, state: State, site: Site) -> packed.UniformGrid:
        """The grid of an input in inference.

        Raises:
            ValueError: bits not whole, no range observed, or range_mode "batch", whose grid is
                another one for each batch.
        """
        if self.range_mode == "batch":
            raise site.error("range_mode 'ema' or 'fixed' for an input with one grid", "'batch'")
        check_observed(state, site)
        bits = ops.convert_to_tensor(self._whole_bits(state, site))
        lo, hi = self._ends(*(ops.convert_to_tensor(state[name]) for name in ("lo", "hi")))
        zero = maths.zero_point(bits, lo, hi) if self._whole_zero else 0
        return packed.UniformGrid(
            bits=int(bits),
            lo=float(lo),
            hi=float(hi),
            origin=0.0 if self._whole_zero else float(lo),
            step=float(maths.step_size(bits, lo, hi)),
            zero=int(zero),
        )


def _current(state: State, dtype):
    """Bits in force: the fixed ones once set."""
    fixed, bits = (ops.cast(state[name], dtype) for name in ("fixed_bits", "bits"))
    return ops.where(fixed >= 0, fixed, bits)


def _batch_range(x):
    """Smallest and largest value of a batch, of all its parts if replicas share it."""
    lo, hi = maths.data_range(x)
    lo, hi = replicas.largest(-lo, hi)
    return -lo, hi


def _averaged(state: State, low, high) -> Updates:
    """New moving averages of the ends; unchanged by NaN and infinity."""
    lo, hi = ops.cast(state["lo"], low.dtype), ops.cast(state["hi"], low.dtype)
    useful = ops.isfinite(high - low)
    return {
        "lo": ops.where(useful, lo + (1 - DECAY) * (low - lo), lo),
        "hi": ops.where(useful, hi + (1 - DECAY) * (high - hi), hi),
    }


def _flat(value) -> np.ndarray:
    """One entry a channel, or one: drops the axes that were kept for broadcasting."""
    return np.reshape(ops.convert_to_numpy(value), -1)
