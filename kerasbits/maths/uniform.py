"""Evenly spaced levels between 0, or `-beta`, and a clipping threshold `beta`.

Signed grids are symmetric, `2^b - 1` levels with 0 in the middle; unsigned ones have `2^b`.
`signed` is a number, 0 or 1, so that it may be state that the data decide.

References: Choi et al., "PACT", arXiv 1805.06085 (learned clipping of activations); Esser et al.,
"Learned Step Size Quantization", arXiv 1902.08153, eq. 3 (gradient of the step).
"""

from __future__ import annotations

import functools

from keras import ops

from kerasbits.maths.fused import fused, partial_sum
from kerasbits.maths.gradients import round_straight_through


def top_code(bits: int, signed, dtype="float32"):
    """Code of the threshold, counted from 0: `2^(b-1) - 1` if signed, else `2^b - 1`.

    Args:
        bits: whole number of bits, at least 1; a signed grid of 1 bit counts as 2 bits.
        signed: scalar, 0 or 1.

    Returns:
        Scalar of `dtype`, a whole number.
    """
    signed = ops.cast(signed, dtype)
    return signed * (2.0 ** max(bits - 1, 1) - 1.0) + (1.0 - signed) * (2.0**bits - 1.0)


def step_size(threshold, bits: int, signed):
    """Value per code step: `beta / top_code`; shape and dtype of `threshold`."""
    return threshold / top_code(bits, signed, threshold.dtype)


def clip_closed(x, lo, hi):
    """Clip to `[lo, hi]`; NaN stays NaN.

    Gradient: to `x` 1 in the closed interval, 0 outside; to `hi` 1 where `x > hi`; to `lo` 1
    where `x < lo`. Stated because backends differ on the borders of their own clip.
    """
    return ops.where(x > hi, hi, ops.where(x < lo, lo, x))


def codes(x, threshold, bits: int, signed):
    """Whole code of each value, negative below 0, as float.

    Formula: `k = round(clip(x, -beta * signed, beta) / step)`, ties to even.

    Gradient: straight through the rounding.

    Args:
        x: float tensor.
        threshold: beta > 0, in values, broadcastable to `x`.
        bits: whole number of bits, 1..16.
        signed: scalar, 0 or 1.

    Returns:
        Tensor like `x`, whole numbers in `[-top_code, top_code]` or `[0, top_code]`.
    """
    lo = (0.0 - ops.cast(signed, x.dtype)) * threshold
    clipped = clip_closed(x, lo, threshold)
    return round_straight_through(clipped / step_size(threshold, bits, signed))


def quantize(x, threshold, bits: int, signed):
    """Nearest level of the grid.

    Formula: `xq = step * k`, with `k` of `codes`.

    Gradient, with `xc` the clipped value: `dxq/dx = 1` for `x` in the closed range, else 0;
    `dxq/dbeta = (xq - xc) / beta` inside, `1` above, `-1` below a signed and `0` below an
    unsigned grid. It is what autodiff makes of the straight-through rounding.

    Args and shapes as in `codes`.
    """
    return _quantizer(bits)(x, ops.cast(threshold, x.dtype), ops.cast(signed, x.dtype))


@functools.cache
def _quantizer(bits: int):
    def forward(x, beta, signed):
        step = step_size(beta, bits, signed)
        # Plus 0, because there is no negative zero on the grid.
        return step * (ops.round(clip_closed(x, (0.0 - signed) * beta, beta) / step) + 0.0)

    def backward(x, beta, signed, y, dy):
        lo = (0.0 - signed) * beta
        above, below = x > beta, x < lo
        dx = ops.where(ops.logical_or(above, below), ops.zeros_like(dy), dy)

        def slope(x, y, dy):
            return dy * ops.where(x > beta, beta, ops.where(x < lo, lo, y - x))

        return dx, partial_sum(slope, (x, y, dy), beta) / beta, None

    return fused(forward, backward)
