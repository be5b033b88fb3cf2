"""Scales of long vectors without sorting them, for inputs in training.

A split of the magnitudes `a = |x|` at a threshold has a gain that needs only the number and the sum
of the elements below it. One pass sorts the elements into bins, whose width follows the mean of the
vector, and gives both for all borders of bins exactly. Most often the best border is as good as the
best split. A last pass takes the threshold to where the split says that the best one is.

What a split inside a bin can gain at most is known from the numbers and sums at its ends, so a row
can tell whether the best border is good enough. If it is not, as where most elements are in one
bin, the part of the line that may hold the best split is divided into bins once more.
"""

from __future__ import annotations

import functools
import math

from keras import ops

from kerasbits.maths.fused import LANES, one_pass, row_by_row

SHORTEST = 1024
"""Vectors of fewer elements are sorted, which is exact in any case."""

LONGEST = 2**24
"""Up to here float32 counts."""

BINS = 512

ENOUGH = 1e-4
"""A bin that may hold a split so much better, in squared errors of the best border, is divided."""

ROUNDING = 1e-6
"""What float32 may do to a gain, relative to the largest there could be."""

PAIRS = 2
"""Neighbours go to bins of their own, so that zeros in a row need not wait for each other's sum."""


def is_long(shape) -> bool:
    """Whether rows of a tensor, (rows, n), can be searched and are worth it."""
    n = shape[-1]
    return n is not None and SHORTEST <= n < LONGEST and n % (2 * LANES) == 0


def search(x, scheme: str):
    """Scales of "ls2" or "lst" for each row.

    The squared error is that of `least_squares.solve`, within 2e-4 of it and mostly within 1e-5,
    and within what float32 sums allow.

    Args:
        x: (rows, n) float with `is_long`.
        scheme: "ls2" or "lst".

    Returns:
        (rows, 2) for "ls2", (rows, 1) for "lst", like `least_squares.solve`.
    """
    x, n = ops.stop_gradient(x), x.shape[-1]
    total = _of_rows(ops.sum, _residual_sums()(x))
    unit = ops.where(total > 0, total / n, ops.ones_like(total))
    best, size = _best(scheme), ops.convert_to_tensor(float(n), x.dtype)
    split, low, high, sure = best(*_histogram()(x, unit), _curved_edges(n, x.dtype), size)

    def divided():
        inner = _inner_histogram()(x, unit, low * unit, high * unit)
        again, *_ = best(*inner, _even_edges(low, high, n), size)
        # Row by row: no row may depend on another.
        return ops.where(sure, split, again)

    split = ops.cond(ops.all(sure), lambda: split, divided)
    count, below = split[:, :1], (split[:, 1:] + split[:, :1]) * unit
    # Half way between the two means.
    border = _solution(scheme, n, total, count, below)[:, :1]
    count, below = (_of_rows(ops.sum, v) for v in _moments()(x, border))
    return _solution(scheme, n, total, count, below)


def greedy(x, k: int):
    """Scales of "gf" for each row; with k = 1 that of "ls1".

    Each is a mean, for which the residuals before it are found anew: reading x again costs less
    than writing them.

    Args:
        x: (rows, n) float with `is_long`.
        k: number of planes.

    Returns:
        (rows, k), that of `least_squares.solve_gf` but for the order of sums.
    """
    x, n = ops.stop_gradient(x), x.shape[-1]
    scales = []
    for _ in range(k):
        scales.append(_of_rows(ops.sum, _residual_sums()(x, *scales)) / n)
    return ops.concatenate(scales, axis=-1)


@functools.cache
def _residual_sums():
    """Sums of the magnitudes of what the given scales leave, (rows, groups, LANES)."""

    def sums(x, *scales):
        for v in scales:
            x = x - ops.where(x >= 0, v, -v)
        return ops.sum(_neighbours(ops.abs(x)), axis=2)

    return one_pass(sums)


def _of_rows(reduce, values):
    """One value for each row, (rows, 1)."""
    return ops.expand_dims(reduce(values, axis=(1, 2)), -1)


def _neighbours(values):
    """Groups of neighbours, (rows, groups, few, LANES), to be added up along the third axis."""
    groups = values.shape[-1] // LANES
    return ops.reshape(
        values, (-1, groups // math.gcd(groups, LANES), math.gcd(groups, LANES), LANES)
    )


@functools.cache
def _histogram():
    """Number of elements, and sum of `a / unit - 1`, of each bin, (rows, BINS + 1) both.

    The bin of a is `BINS a / (a + unit)`, so that half of them are below the mean and none is too
    far out to have one.
    """

    def histogram(x, unit):
        a = ops.abs(x)
        return _bins(a, unit, BINS - BINS * (unit / (a + unit)), BINS + 1)

    return row_by_row(histogram)


@functools.cache
def _inner_histogram():
    """The same, of even bins from `low` to `high`; the first and the last one hold the rest."""

    def histogram(x, unit, low, high):
        a = ops.abs(x)
        width = ops.maximum(high - low, 1e-30)
        return _bins(a, unit, 1 + BINS * ((a - low) / width), BINS + 2)

    return row_by_row(histogram)


def _bins(a, unit, position, size: int):
    rows = ops.shape(a)[0]
    # Clipped as float first: what is out of reach of int32 could be any number.
    inside = ops.cast(ops.floor(ops.clip(position, 0, size - 1)), "int32")
    inside = ops.clip(inside, 0, size - 1)  # NaN
    index = inside + size * ops.expand_dims(ops.arange(rows), -1)
    index = PAIRS * ops.reshape(index, (-1, PAIRS)) + ops.arange(PAIRS)
    values = ops.stack([ops.ones_like(a), a / unit - 1], axis=-1)
    sums = ops.segment_sum(
        ops.reshape(values, (-1, 2)), ops.reshape(index, (-1,)), PAIRS * rows * size
    )
    sums = ops.sum(ops.reshape(sums, (-1, size, PAIRS, 2)), axis=2)
    return sums[..., 0], sums[..., 1]


def _curved_edges(n: int, dtype):
    """Ends of the bins of `_histogram` in units, (1, BINS + 2); no element of n exceeds n units."""
    edges = [j / (BINS - j) for j in range(BINS)]
    return ops.convert_to_tensor([[*edges, float(n), float(n)]], dtype)


def _even_edges(low, high, n: int):
    """Ends of the bins of `_inner_histogram` in units, (rows, BINS + 3)."""
    j = ops.cast(ops.arange(BINS + 1), low.dtype) / BINS
    first, last = ops.zeros_like(low), ops.full_like(low, n)
    return ops.concatenate([first, low + (high - low) * j, last], axis=-1)


@functools.cache
def _best(scheme: str):
    """The best border, what may be better, and whether that is little.

    A function of numbers and sums of the bins, of the ends of the bins, one more than bins, and of
    n. It gives (rows, 2) number and sum below the best border; two ends (rows, 1) of a part of the
    line that holds the best split; (rows, 1) bool.
    """

    def best(counts, sums, edges, n):
        after = [ops.cumsum(v, axis=-1) for v in (counts, sums)]
        before = [v - own for v, own in zip(after, (counts, sums), strict=True)]
        gain = _gain(scheme, n, *after)
        most = ops.max(gain, axis=-1, keepdims=True)
        chosen = ops.one_hot(ops.argmax(gain, axis=-1), counts.shape[-1], dtype=gain.dtype)
        split = ops.stack([ops.sum(v * chosen, axis=-1) for v in after], axis=-1)
        bound = _most_inside(scheme, n, before, (counts, sums), edges)
        # At least this: what the elements of a bin are apart is not in it.
        squares = ops.sum(ops.square(sums) / ops.maximum(counts, 1), axis=-1, keepdims=True)
        squares = squares if scheme == "ls2" else squares + n
        slack = ENOUGH * ops.maximum(squares - most, 0) + ROUNDING * squares
        better = bound > most
        low, high = edges[:, :-1], edges[:, 1:]
        # With none better, around the border itself.
        border = ops.max(high * chosen, axis=-1, keepdims=True)
        low, high = (ops.where(better, end, border) for end in (low, high))
        low, high = ops.min(low, axis=-1, keepdims=True), ops.max(high, axis=-1, keepdims=True)
        return split, low, high, ops.max(bound, axis=-1, keepdims=True) <= most + slack

    # Not large, but of many operations, and of one shape for all layers.
    return one_pass(best, small=BINS)


def _most_inside(scheme: str, n: int, before, own, edges):
    """What no split inside a bin exceeds.

    The gain is a convex function of number k and sum s. The k least elements of a bin have at least
    `k low`, and leave at most `(K - k) high`, and have at most their share of the sum: a triangle.
    Two of its corners are the ends of the bin, the third is where the elements are at both ends.
    """
    counts, sums = own
    low, high = edges[:, :-1] - 1, edges[:, 1:] - 1
    width = ops.maximum(high - low, 1e-30)
    k = ops.clip((counts * high - sums) / width, 0, counts)
    corner = _gain(scheme, n, before[0] + k, before[1] + k * low)
    return ops.where(counts > 1, corner, -ops.ones_like(corner))


def _gain(scheme: str, n: int, counts, sums):
    """What a split takes from the squared error, but for a constant; sums of `a / unit - 1`."""
    above = ops.maximum(n - counts, 1)
    if scheme == "lst":
        return ops.square(ops.maximum(n - counts, 0) - sums) / above
    return ops.square(sums) / ops.maximum(counts, 1) + ops.square(sums) / above


@functools.cache
def _moments():
    """Numbers and sums of the elements up to a threshold, (rows, groups, LANES)."""

    def moments(x, threshold):
        a = ops.abs(x)
        below = a <= threshold
        values = ops.cast(below, a.dtype), ops.where(below, a, ops.zeros_like(a))
        return [ops.sum(_neighbours(v), axis=2) for v in values]

    return one_pass(moments)


def _solution(scheme: str, n: int, total, count, below):
    """Scales of a split by the number and the sum of its lower part."""
    above, rest = n - count, total - below
    # A NaN in the row is in its total, whatever was counted.
    high = ops.where(above > 0, rest / ops.maximum(above, 1), total / n)
    if scheme == "lst":
        return high / 2
    low = ops.where(count > 0, below / ops.maximum(count, 1), high)
    half_gap = ops.maximum(high - low, 0) / 2
    return ops.concatenate([low + half_gap, half_gap], axis=-1)
