"""BitPruning: the number of bits of a group is a real number, learned by gradient descent.

Between two whole bitlengths the quantizer interpolates between their two grids. Grids are
uniform between the ends `lo` and `hi` of a group. A regularizer pulls the bits down.

Reference: Nikolić et al., "BitPruning: Learning Bitlengths for Aggressive and Accurate
Quantization", arXiv 2002.03090.
"""

from __future__ import annotations

import functools

from keras import ops

from kerasbits.maths.fused import fused, partial_sum
from kerasbits.maths.gradients import exact_straight_through
from kerasbits.maths.uniform import clip_closed

MIN_BITS = 1.0
"""Shortest bitlength: two levels."""

SELECTION_SLACK = 1e-6
"""In bits: `select_bits` forgives this much, so that float noise does not cost a whole bit."""


def data_range(v, axes=None):
    """Ends of the data, `(min v, max v)`, constants for the gradient.

    Args:
        v: float tensor.
        axes: axes that belong to one group, kept as size 1; None is one group, scalar ends.
    """
    v, keep = ops.stop_gradient(v), axes is not None
    return ops.min(v, axis=axes, keepdims=keep), ops.max(v, axis=axes, keepdims=keep)


def include_zero(lo, hi):
    """The range widened to contain 0: `(min(lo, 0), max(hi, 0))`."""
    return ops.minimum(lo, ops.zeros_like(lo)), ops.maximum(hi, ops.zeros_like(hi))


def effective_bits(n, max_bits: int):
    """Bits clipped to what can be evaluated.

    Formula: `n_eff = clip(n, 1, max_bits)`.

    Gradient: 1 everywhere, so that a value outside can come back.
    """
    return exact_straight_through(n, ops.clip(n, MIN_BITS, max_bits))


def split_bits(n_eff, max_bits: int):
    """Lower whole bitlength and the fraction above it.

    Formula: `b = min(floor(n_eff), max_bits - 1)`, `alpha = n_eff - b`. At `max_bits` alpha is 1,
    so that no longer bitlength is ever evaluated.

    Gradient: `b` is a constant, `dalpha/dn_eff = 1`.
    """
    b = ops.stop_gradient(ops.minimum(ops.floor(n_eff), ops.cast(max_bits - 1, n_eff.dtype)))
    return b, n_eff - b


def top_code(bits):
    """Largest code, `2^bits - 1`, as float; `bits` whole, at most 16."""
    # Rounded, because a backend may compute the power through logarithms.
    return ops.round(ops.power(ops.cast(2.0, bits.dtype), bits)) - 1.0


def step_size(bits, lo, hi):
    """Value per code step, `(hi - lo) / (2^bits - 1)`; 1 where that is 0 (constant groups)."""
    step = (hi - lo) / top_code(bits)
    return ops.where(step > 0, step, ops.ones_like(step))


def zero_point(bits, lo, hi):
    """Whole code that stands for 0: `clip(round(-lo / step), 0, 2^bits - 1)`.

    Args:
        bits: whole bits.
        lo, hi: ends of a range that contains 0.
    """
    code = ops.round((0.0 - lo) / step_size(bits, lo, hi))
    return ops.minimum(ops.maximum(code, ops.zeros_like(code)), top_code(bits))


def codes(v, bits, lo, hi, whole_zero: bool = False):
    """Unsigned codes at whole bits, as float.

    Formula: `round((v - lo) / step)`; with `whole_zero`
    `clip(round(v / step) + zero_point, 0, 2^bits - 1)`. Ties to even.

    Args:
        v: float tensor inside `[lo, hi]`.
        bits: whole bits, broadcastable to `v`.
        lo, hi: ends of the range, broadcastable to `v`; they contain 0 if `whole_zero`.
        whole_zero: move the grid by less than a step, so that 0 is a level.

    Returns:
        Whole numbers in `[0, 2^bits - 1]`, like `v`.
    """
    step = step_size(bits, lo, hi)
    if not whole_zero:
        return ops.round((v - lo) / step)
    code = ops.round(v / step) + zero_point(bits, lo, hi)
    return ops.minimum(ops.maximum(code, ops.zeros_like(code)), top_code(bits))


def quantize_whole(v, bits, lo, hi, whole_zero: bool = False):
    """Levels at whole bits; args as in `codes`, no gradient of its own.

    Formula: `lo + step * code`; with `whole_zero` `step * (code - zero_point)`.

    Reference: arXiv 2002.03090, integer bitlengths.
    """
    code, step = codes(v, bits, lo, hi, whole_zero), step_size(bits, lo, hi)
    if whole_zero:
        return step * (code - zero_point(bits, lo, hi))
    return lo + step * code


def quantize(v, n, lo, hi, max_bits: int = 16, whole_zero: bool = False, clips: bool = True):
    """Quantize at real bits.

    Formula: `Q(v, n) = (1 - alpha) Q(v, b) + alpha Q(v, b + 1)`, `b = floor(n)`,
    `alpha = n - b`, for `v` clipped to `[lo, hi]` and `n` clipped to `[1, max_bits]`.

    Gradient: `dQ/dv = 1` in the closed range, 0 outside; `dQ/dn = Q(v, b + 1) - Q(v, b)`, also
    where `n` was clipped; `lo` and `hi` are constants.

    Args:
        v: float tensor.
        n: real bits, broadcastable to `v`.
        lo, hi: ends of the range of a group, broadcastable to `v`.
        max_bits: longest bitlength, 2..16.
        whole_zero: as in `codes`.
        clips: False if `v` is known to lie in the range, which saves looking.

    Returns:
        Tensor like `v`.

    Reference: arXiv 2002.03090, non-integer bitlengths.
    """
    dtype = ops.convert_to_tensor(v).dtype
    n, lo, hi = (ops.cast(value, dtype) for value in (n, lo, hi))
    lo, hi = ops.stop_gradient(lo), ops.stop_gradient(hi)
    grids = _grids(max_bits, whole_zero)(ops.stop_gradient(n), lo, hi)
    return _quantizer(whole_zero, clips)(v, n, lo, hi, *(ops.stop_gradient(g) for g in grids))


@functools.cache
def _grids(max_bits: int, whole_zero: bool):
    """Fraction, and the grids of `b` and `b + 1` bits, each as numbers for `_level`."""

    def grids(n, lo, hi):
        b, alpha = split_bits(ops.clip(n, MIN_BITS, max_bits), max_bits)
        found = [alpha]
        for bits in (b, b + 1.0):
            found.append(step_size(bits, lo, hi))
            if whole_zero:
                found += [zero_point(bits, lo, hi), top_code(bits)]
        return found

    return grids


def _level(v, lo, grid):
    """As `quantize_whole`, from a grid of `(step,)` or `(step, zero, top)`."""
    if len(grid) == 1:
        return lo + grid[0] * ops.round((v - lo) / grid[0])
    step, zero, top = grid
    code = ops.round(v / step) + zero
    return step * (ops.minimum(ops.maximum(code, ops.zeros_like(code)), top) - zero)


@functools.cache
def _quantizer(whole_zero: bool, clips: bool):
    size = 3 if whole_zero else 1

    def levels(v, lo, hi, grids):
        v = clip_closed(v, lo, hi) if clips else v
        return _level(v, lo, grids[:size]), _level(v, lo, grids[size:])

    def forward(v, n, lo, hi, alpha, *grids):
        below, above = levels(v, lo, hi, grids)
        return (1.0 - alpha) * below + alpha * above

    def backward(v, n, lo, hi, alpha, *rest):
        *grids, _, dy = rest

        def slope(v, dy):
            below, above = levels(v, lo, hi, grids)
            return dy * (above - below)

        dn = partial_sum(slope, (v, dy), n)
        nothing = [None] * (3 + 2 * size)
        if not clips:
            return dn, *nothing
        outside = ops.logical_or(v > hi, v < lo)
        return ops.where(outside, ops.zeros_like(dy), dy), dn, *nothing

    return fused(forward, backward, passes=not clips)


def select_bits(n, max_bits: int, rounding: str = "ceil"):
    """Final whole bits.

    Formula: `max(1, ceil(n_eff - 1e-6))`, or the nearest whole number for rounding "round".
    """
    n = ops.stop_gradient(effective_bits(n, max_bits))
    if rounding == "ceil":
        return ops.maximum(ops.ceil(n - SELECTION_SLACK), ops.cast(MIN_BITS, n.dtype))
    return ops.round(n)


def regularizer(n, importance, strength, max_bits: int):
    """Cost of the bits: `strength * sum_i importance_i * n_eff_i`, a scalar.

    Gradient: `strength * importance_i`, also where `n` is clipped.

    Args:
        n: real bits, any shape.
        importance: weight of each entry of `n`, of its shape or a scalar.
        strength: accuracy against bits, at least 0.
        max_bits: longest bitlength.

    Reference: arXiv 2002.03090, regularizer.
    """
    return strength * ops.sum(importance * effective_bits(n, max_bits))
