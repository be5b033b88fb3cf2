"""Scales of long vectors without sorting them, for inputs in training.

A split of the magnitudes `a = |x|` at a threshold t has a gain that needs only the number and the
sum of the elements up to t. So the best of many thresholds is found in one pass over the data, and
a few passes, each between the neighbours of the best threshold so far, narrow it down. The scales
are the exact ones of the last split, which is the best as long as the gain has its highest peak
near the best of the first thresholds.
"""

from __future__ import annotations

import functools

from keras import ops

from kerasbits.maths.fused import one_pass

SHORTEST = 4096
"""Vectors of fewer elements are sorted, which is exact in any case."""

NARROWER = (8, 8)
"""Thresholds of the passes behind the first one. Each bracket is 2/9 of that before."""

MOVES = 4
"""Last passes, of one threshold each: where its split says that the best one is, half way between
the two means. Each leaves about half of the distance, whatever the scale of the data is. The
squared error is then within 2e-4 of the least one, mostly within 2e-5."""

FIRST = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
"""First thresholds, in means."""

TAIL = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 0.99)
"""And between the last of them, exponent 0, and the largest magnitude, exponent 1."""

LANES = 1024
"""Sums run side by side."""


def is_long(shape) -> bool:
    """Whether rows of a tensor, (rows, n), can be searched and are worth it."""
    n = shape[-1]
    return n is not None and n >= SHORTEST and n % LANES == 0


def search(x, scheme: str):
    """Scales of "ls2" or "lst" for each row.

    Args:
        x: (rows, n) float with `is_long`.
        scheme: "ls2" or "lst".

    Returns:
        (rows, 2) for "ls2", (rows, 1) for "lst", like `least_squares.solve`.
    """
    x = ops.stop_gradient(x)
    n = x.shape[-1]
    sums, tops = _totals()(x)
    total, top = ops.sum(sums, axis=-1, keepdims=True), ops.max(tops, axis=-1, keepdims=True)
    thresholds = _first()(total / n, top)
    best = ops.zeros_like(ops.concatenate([total, total, total], axis=-1))
    for size in (*NARROWER, 1):
        thresholds, best = _one_round(scheme, x, thresholds, total, top, best, size)
    for _ in range(MOVES):
        thresholds = _border(scheme, n)(total, best)
        _, best = _one_round(scheme, x, thresholds, total, top, best, 1)
    return _scales(scheme, n)(total, best)


def _one_round(scheme: str, x, thresholds, total, top, best, new: int):
    counts, sums = _moments()(x, thresholds)
    counts, sums = ops.sum(counts, axis=-1), ops.sum(sums, axis=-1)
    return _narrowed(scheme, x.shape[-1], new)(thresholds, counts, sums, total, top, best)


def _lanes(x):
    return ops.abs(ops.reshape(x, (-1, x.shape[-1] // LANES, LANES)))


@functools.cache
def _totals():
    def totals(x):
        a = _lanes(x)
        return ops.sum(a, axis=1), ops.max(a, axis=1)

    return one_pass(totals)


@functools.cache
def _moments():
    """Number and sum of the elements up to each threshold, (rows, T, LANES)."""

    def moments(x, thresholds):
        a = ops.expand_dims(_lanes(x), 2)
        below = a <= ops.reshape(thresholds, (-1, 1, thresholds.shape[-1], 1))
        counts = ops.sum(ops.cast(below, a.dtype), axis=1)
        return counts, ops.sum(ops.where(below, a, ops.zeros_like(a)), axis=1)

    return one_pass(moments)


@functools.cache
def _first():
    def first(mean, top):
        last = FIRST[-1] * mean
        ratio = ops.maximum(top, last) / ops.where(last > 0, last, ops.ones_like(last))
        tail = [last * ops.power(ratio, f) for f in TAIL]
        return ops.concatenate([*(f * mean for f in FIRST), *tail], axis=-1)

    return one_pass(_sorted_small(first), small=0)


def _sorted_small(function):
    """The thresholds of `function` in rising order, so that neighbours are neighbours."""
    return lambda *arguments: ops.sort(function(*arguments), axis=-1)


@functools.cache
def _narrowed(scheme: str, n: int, new: int):
    """`new` thresholds between the neighbours of the best one, and the best split so far."""

    def narrowed(thresholds, counts, sums, total, top, best):
        gain = _gain(scheme, n, counts, sums, total)
        at = ops.argmax(gain, axis=-1)
        size = thresholds.shape[-1]
        chosen = ops.one_hot(at, size, dtype=gain.dtype)
        found = [ops.sum(v * chosen, axis=-1, keepdims=True) for v in (gain, counts, sums)]
        found = ops.concatenate(found, axis=-1)
        best = ops.where(found[:, :1] > best[:, :1], found, best)
        padded = ops.concatenate([ops.zeros_like(top), thresholds, top], axis=-1)
        left = ops.sum(padded[:, :size] * chosen, axis=-1, keepdims=True)
        right = ops.sum(padded[:, 2:] * chosen, axis=-1, keepdims=True)
        steps = ops.cast(ops.arange(1, new + 1), gain.dtype) / (new + 1)
        return left + (right - left) * steps, best

    return one_pass(narrowed, small=0)


def _gain(scheme: str, n: int, counts, sums, total):
    """What a split takes from the squared error, but for a constant."""
    above = n - counts
    if scheme == "lst":
        return ops.square(total - sums) / ops.maximum(above, 1)
    # Relative to the mean, so that the two parts have sums of equal size.
    moved = sums - counts * (total / n)
    return ops.square(moved) / ops.maximum(counts, 1) + ops.square(moved) / ops.maximum(above, 1)


@functools.cache
def _border(scheme: str, n: int):
    """The threshold that the means of the best split ask for: `v_1`, or v for "lst"."""
    return one_pass(lambda total, best: _solution(scheme, n, total, best)[:, :1], small=0)


@functools.cache
def _scales(scheme: str, n: int):
    return one_pass(lambda total, best: _solution(scheme, n, total, best), small=0)


def _solution(scheme: str, n: int, total, best):
    """Scales of the best split."""
    count, below = best[:, 1:2], best[:, 2:3]
    above, rest = n - count, total - below
    # A NaN in the row is in its total, whatever was counted.
    high = ops.where(above > 0, rest / ops.maximum(above, 1), total / n)
    if scheme == "lst":
        return high / 2
    low = ops.where(count > 0, below / ops.maximum(count, 1), high)
    half_gap = ops.maximum(high - low, 0) / 2
    return ops.concatenate([low + half_gap, half_gap], axis=-1)
