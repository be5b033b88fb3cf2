"""Additive powers of two (APoT): levels that are sums of a few powers of two.

A product with such a level is a few shifts and additions, and levels are dense near 0. Symbols:
`B` bits of a magnitude, `k` bits of one term, `alpha` the learned clipping threshold (in values),
`u = x / alpha`, `I` whole levels, `Lmax` the largest of them; level `I` stands for
`alpha * I / Lmax`.

Reference: Li, Dong, Wang, "Additive Powers-of-Two Quantization: An Efficient Non-uniform
Discretization for Neural Networks", ICLR 2020, arXiv 1909.13144.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

from keras import ops

from kerasbits.maths.fused import fused, is_small, partial_sum
from kerasbits.maths.uniform import clip_closed

EPSILON = 1e-5
"""Added to the population standard deviation, in values of the kernel."""


def shift_terms(bits: int, k: int = 2) -> tuple[tuple[int, ...], ...]:
    """Exponents e of the powers `2^-e` that each term may take besides 0.

    Formula: with `n = B // k` terms, term i takes `{i, i + n, ..., i + (2^k - 2) n}`. For k = 2
    and odd B the last of these is `i + 2n + 1`, and one more term takes `{2n}`.

    All exponents differ, so all sums differ.

    Args:
        bits: B, at least 1.
        k: bits of one term; divides B, except that k = 2 takes any B.

    Raises:
        ValueError: other k.

    Reference: arXiv 1909.13144, additive powers-of-two set.
    """
    if bits < 1 or k < 1 or (k != 2 and bits % k):
        raise ValueError(
            "expected base bits k of 2, or a divisor of the bits of a magnitude, "
            f"got k {k} for {bits} bits"
        )
    n, odd = divmod(bits, k)
    count = 2**k - 1
    terms = [
        tuple(i + j * n + (1 if odd and j == count - 1 else 0) for j in range(count))
        for i in range(n)
    ]
    return (*terms, (2 * n,)) if odd else tuple(terms)


def magnitude_levels(bits: int, k: int = 2) -> tuple[int, ...]:
    """The `2^B` whole levels, rising from 0; the last is `Lmax`.

    Formula: `I = 2^E u`, `u` all sums of one choice from each of `shift_terms`, `E` the largest
    exponent. Divided by `Lmax` they are the levels in [0, 1].

    Example: `magnitude_levels(3) == (0, 1, 2, 3, 4, 6, 8, 10)`.
    """
    terms = shift_terms(bits, k)
    largest = max(e for term in terms for e in term)
    choices = [(0, *(2 ** (largest - e) for e in term)) for term in terms]
    return tuple(sorted(sum(choice) for choice in itertools.product(*choices)))


def level_midpoints(levels: tuple[int, ...]) -> tuple[float, ...]:
    """Borders between neighbouring levels, in units of the largest: `(I_j + I_j+1) / (2 Lmax)`."""
    return tuple((a + b) / (2 * levels[-1]) for a, b in itertools.pairwise(levels))


MOST_COMPARED = 32
"""Tables of at most so many levels are compared with one by one in large tensors: a compiler turns
that into a few instructions for many elements at once, and a search into a search for each."""


class LevelTable(NamedTuple):
    """Whole magnitudes (L,), midpoints (L - 1,) and the largest magnitude, as tensors.

    Padded by the largest magnitude and by infinite midpoints, which nothing exceeds.
    """

    levels: object
    midpoints: object
    top: object


def level_table(signed, if_signed, if_unsigned, dtype="float32") -> LevelTable:
    """The table of the grid in force, of one static size.

    Args:
        signed: scalar, 0 or 1.
        if_signed, if_unsigned: magnitudes of the two grids (`magnitude_levels`); None if that
            grid cannot occur.
        dtype: of the result.
    """
    if if_signed is None or if_unsigned is None:
        only = if_unsigned if if_signed is None else if_signed
        return _padded_table(only, len(only), dtype)
    size = max(len(if_signed), len(if_unsigned))
    a, b = (_padded_table(levels, size, dtype) for levels in (if_signed, if_unsigned))
    choose = ops.cast(signed, dtype) > 0.5
    return LevelTable(*(ops.where(choose, x, y) for x, y in zip(a, b, strict=True)))


def _padded_table(levels: tuple[int, ...], size: int, dtype) -> LevelTable:
    spare = size - len(levels)
    return LevelTable(
        ops.convert_to_tensor([float(i) for i in (*levels, *[levels[-1]] * spare)], dtype),
        ops.convert_to_tensor([*level_midpoints(levels), *[math.inf] * spare], dtype),
        ops.convert_to_tensor(float(levels[-1]), dtype),
    )


def signed_index(u, midpoints):
    """Index of the nearest level, negative where `u` is.

    Formula: `sign(u) * (number of midpoints strictly below |u|)`: ties go to the smaller level.

    No gradient. NaN gets some index: the caller propagates it.

    Args:
        u: float tensor.
        midpoints: (L - 1,), rising, dtype of `u`.

    Returns:
        Whole numbers in `[1 - L, L - 1]`, int32, like `u`.
    """
    u = ops.stop_gradient(u)
    index = ops.searchsorted(midpoints, ops.reshape(ops.abs(u), (-1,)), side="left")
    index = ops.cast(ops.reshape(index, ops.shape(u)), "int32")
    return ops.where(u < 0, 0 - index, index)


def clip_unit(x, alpha, signed):
    """`clip(x / alpha, -signed, 1)`; gradient 1 / alpha in the closed interval, else 0."""
    u = x / alpha
    lo = 0.0 - ops.cast(signed, u.dtype)
    return clip_closed(u, lo, ops.ones_like(lo))


def codes(x, alpha, signed, table: LevelTable):
    """Signed index of the level of each value, int32; see `signed_index`."""
    return signed_index(clip_unit(x, alpha, signed), table.midpoints)


def quantize(x, alpha, signed, table: LevelTable, rescale=1.0, clipped: bool = True):
    """The reparameterized clipping function: clip at alpha, then take the nearest level.

    Formula: `u = x / alpha`, `xq = rescale * alpha * sign(u) P(min(|u|, 1))`, where P is the
    nearest level; an unsigned grid takes negative `u` to 0.

    Gradient (times rescale): to alpha `sign(u)` where clipped (0 below an unsigned grid), else
    `sign(u) P(|u|) - u`. To x 1 in the closed range, outside 0, or 1 if not `clipped`.

    Args:
        x: float tensor.
        alpha: > 0, in values of x, broadcastable to `x`.
        signed: scalar, 0 or 1.
        table: of `level_table`.
        rescale: constant factor of the output.
        clipped: whether clipped values get no gradient.

    Returns:
        Tensor like `x`, exactly `scale * I` with `scale` of `level_scale`.

    Reference: arXiv 1909.13144, reparameterized clipping function.
    """
    alpha, signed, rescale = (ops.cast(value, x.dtype) for value in (alpha, signed, rescale))
    levels, midpoints, top = table
    compared = _is_compared(x, alpha, levels)
    borders = _borders(ops.stop_gradient(alpha), midpoints) if compared else midpoints
    return _quantizer(clipped, compared)(x, alpha, signed, rescale, levels, borders, top)


@functools.cache
def _quantizer(clipped: bool, compared: bool):
    nearest = _compared_levels if compared else _searched_levels

    def forward(x, alpha, signed, rescale, levels, borders, top):
        return alpha * rescale / top * nearest(x, alpha, signed, levels, borders)

    def backward(x, alpha, signed, rescale, levels, borders, top, y, dy):
        lo, dx = (0.0 - signed) * alpha, dy * rescale
        # As x / alpha > 1 says: no quotient of floats rounds across 1.
        outside = ops.logical_or(x > alpha, x < lo)
        if clipped:
            dx = ops.where(outside, ops.zeros_like(dx), dx)

        def slope(x, y, dy):
            border = ops.where(x > alpha, alpha, lo)
            outside = ops.logical_or(x > alpha, x < lo)
            return dy * ops.where(outside, rescale * border, y - rescale * x)

        dalpha = partial_sum(slope, (x, y, dy), alpha) / alpha
        return dx, dalpha, None, None, None, None, None

    return fused(forward, backward, tables=(3, 4))  # levels and borders


def _is_compared(x, alpha, levels) -> bool:
    short = levels.shape[0] <= MOST_COMPARED and len(alpha.shape) == 0
    return short and not is_small(x) and ops.dtype(x) == "float32"


def _borders(alpha, midpoints):
    """The largest x with `x / alpha <= midpoint` of each midpoint, so that none need be divided."""
    # The product, and all floats near it: steps of more than half an ulp and less than one.
    product = midpoints * alpha
    steps = ops.expand_dims(ops.arange(-8, 9, dtype=product.dtype), -1)
    near = product + steps * (product * 2.0**-24)
    return ops.max(ops.where(near / alpha <= midpoints, near, ops.zeros_like(near)), axis=0)


def _compared_levels(x, alpha, signed, levels, borders):
    """Whole level of each x with its sign, by comparisons with all borders."""
    size, found = ops.where(x < 0, (0.0 - signed) * x, x), ops.zeros_like(x)
    for j in range(levels.shape[0] - 1):
        found = ops.where(size > borders[j], levels[j + 1], found)
    # NaN is in no order with borders.
    return ops.where(ops.isnan(x), x, ops.where(x < 0, 0.0 - found, found))


def _searched_levels(x, alpha, signed, levels, midpoints):
    """The same by a search in the midpoints."""
    u = clip_unit(x, alpha, signed)
    index = signed_index(u, midpoints)
    magnitude = ops.take(levels, ops.abs(index))
    # NaN finds some level; the difference, else 0, brings it back.
    return ops.where(index < 0, 0.0 - magnitude, magnitude) + (u - u)


def level_scale(alpha, table: LevelTable, rescale=1.0):
    """Value of one unit of level: `alpha * rescale / Lmax`, of the shape of `alpha`."""
    return alpha * ops.stop_gradient(ops.cast(rescale, alpha.dtype)) / table.top


def normalize(w, std: str = "population", gradient: str = "full"):
    """Weight normalization of a whole layer.

    Formula: `wn = (w - mu) / den`; "population" `den = sigma + 1e-5`, dividing by N; "sample"
    `den = sigma`, dividing by N - 1 (1 if that is 0). A constant `w` gives 0.

    Gradient, with `G = dL/dwn`, `d = w - mu` and c = N or N - 1: "detached" `G / den`; "full"
    `(G - mean(G)) / den - d * sum(G d) / (den^2 sigma c)`, whose last term is 0 where sigma is.

    Args:
        w: kernel.
        std: "population" or "sample".
        gradient: "full" differentiates mean and deviation, "detached" takes them as constants.

    Returns:
        `wn` like `w`, and `den`, a scalar.

    Reference: arXiv 1909.13144, weight normalization.
    """
    size = ops.cast(ops.size(w), w.dtype)
    # Relative to one element, so that a constant kernel gives differences of exactly 0.
    shifted = w - ops.stop_gradient(ops.reshape(w, (-1,))[0])
    mean = ops.mean(shifted)
    if gradient == "detached":
        mean = ops.stop_gradient(mean)
    d = shifted - mean
    count = size if std == "population" else ops.maximum(size - 1, 1)
    variance = ops.sum(d * d) / count
    some = variance > 0
    # The inner choice keeps the infinite slope of the root at 0 out of the gradient.
    root = ops.sqrt(ops.where(some, variance, ops.ones_like(variance)))
    exact = ops.where(some, root, ops.zeros_like(root))
    den = exact + EPSILON if std == "population" else root
    if gradient == "detached":
        den = ops.stop_gradient(den)
    return d / den, den
