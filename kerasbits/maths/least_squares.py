"""Least squares binary quantization: a vector as a weighted sum of a few sign vectors.

    x ~ sum_i v_i s_i,    s_i in {-1, +1}^n

with scales `v_i` that make the squared error minimal (LS-1, LS-2, LS-T) or greedily minimal
(GF-k). In all functions `sign(0) = +1`. The solvers treat the last axis as the vector and every
other axis as independent rows; no gradient flows through them.

Reference: Pouransari, Tu, Tuzel, "Least squares binary quantization of neural networks",
arXiv 2001.02786. Where the authors' code searches the scales among the data values, these
solvers return the true minimum.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from keras import ops

from kerasbits.maths.fused import fused

SCHEMES = ("ls1", "ls2", "lst", "gf")
"""One plane; two planes; ternary (two planes of one scale); k greedy planes."""


def solve(x, scheme: str, k: int = 2, subsample: int = 1, sum_dtype: str | None = None):
    """Scales of one scheme.

    Args:
        x: (..., n) float.
        scheme: one of `SCHEMES`.
        k: number of planes, used by "gf" only.
        subsample: fit on every `subsample`-th element only (faster, no longer optimal).
        sum_dtype: dtype of prefix sums, see `solve_ls2`.

    Returns:
        (..., 1) for "ls1" and "lst", (..., 2) for "ls2", (..., k) for "gf"; at least float32.
    """
    x = x[..., ::subsample]
    if scheme == "ls1":
        return solve_ls1(x)
    if scheme == "ls2":
        return solve_ls2(x, sum_dtype)
    if scheme == "lst":
        return solve_lst(x, sum_dtype)
    return solve_gf(x, k)


def solve_ls1(x):
    """Exact scale of one plane: `v_1 = mean|x|`.

    The squared error is `sum x^2 - n v_1^2`.

    Args:
        x: (..., n) float.

    Returns:
        (..., 1).

    Reference: arXiv 2001.02786, section 3 (1-bit solution).
    """
    return ops.mean(_magnitudes(x), axis=-1, keepdims=True)


def solve_ls2(x, sum_dtype: str | None = None):
    """Exact scales of two planes, `v_1 >= v_2 >= 0`.

    With `lo = v_1 - v_2` and `hi = v_1 + v_2` this is 2-means of `a = |x|` on a line: some
    split of the sorted `a` is optimal, and `lo`, `hi` are the means of its two parts. All
    splits are compared by

        gain_i = c_i^2 / i + (c_n - c_i)^2 / (n - i),    c = prefix sums of sorted a - mean(a)

    (subtracting the mean adds the same to every gain, and keeps it well above rounding). The
    first maximum wins. A vector of one element has `v = (a, 0)`.

    Args:
        x: (..., n) float.
        sum_dtype: dtype of the prefix sums; None is the dtype of `x`. Around the optimum of a
            vector of 10^4 elements the gains differ by less than float32 can tell: the split is
            then off by some elements, the error by less than 1e-4 of itself. Give "float64"
            where the backend has it.

    Returns:
        (..., 2).

    Reference: arXiv 2001.02786, section 3 (2-bit solution); the search is ours.
    """
    a, unit = _normalised(_magnitudes(x))
    a = ops.sort(a, axis=-1)
    count = _counts(a)
    below = _prefix_sums(a - 1, sum_dtype)
    above = below[..., -1:] - below
    size = ops.cast(count, below.dtype)
    gain = ops.square(below) / size + ops.square(above) / ops.maximum(size[-1] - size, 1)
    split = _first_maximum(gain, a.dtype)
    lo = _mean_where(count <= split, a)
    # No element is above the split if n = 1, or if rounding prefers the trivial split.
    hi = ops.where(split < count[-1], _mean_where(count > split, a), lo)
    half_gap = ops.maximum(hi - lo, 0) / 2
    return unit * ops.concatenate([lo + half_gap, half_gap], axis=-1)


def solve_lst(x, sum_dtype: str | None = None):
    """Exact scale `v` of the ternary levels `-2v, 0, 2v`.

    With `S_m` the sum of the m largest magnitudes, keeping m of them non-zero leaves the error
    `sum x^2 - S_m^2 / m`; so `v = S_m / (2 m)` at the first maximum of `S_m^2 / m`. m = n, no
    zeros, is a legal solution (nearly constant magnitudes).

    Args:
        x: (..., n) float.
        sum_dtype: dtype of the prefix sums, see `solve_ls2`.

    Returns:
        (..., 1): both planes have this scale.

    Reference: arXiv 2001.02786, section 3 (ternary solution); the search is ours.
    """
    a, unit = _normalised(_magnitudes(x))
    a = ops.flip(ops.sort(a, axis=-1), axis=-1)
    count = _counts(a)
    largest = _prefix_sums(a, sum_dtype)
    gain = ops.square(largest) / ops.cast(count, largest.dtype)
    kept = _first_maximum(gain, a.dtype)
    return unit * _mean_where(count <= kept, a) / 2


def solve_gf(x, k: int):
    """Greedy scales: `r = x;  k times: v_i = mean|r|;  r = r - v_i sign(r)`.

    Step i reduces the squared error by `n v_i^2`. The scales need not decrease.

    Args:
        x: (..., n) float.
        k: number of planes.

    Returns:
        (..., k).

    Reference: arXiv 2001.02786, section 3 (greedy foldable quantization).
    """
    r = ops.stop_gradient(_wide(x))
    scales = []
    for _ in range(k):
        v = ops.mean(ops.abs(r), axis=-1, keepdims=True)
        scales.append(v)
        r = r - ops.where(r >= 0, v, -v)
    return ops.concatenate(scales, axis=-1)


def rows(x, axis: int | None):
    """The vectors of a tensor as rows: one for each index of `axis`, or one in all (None).

    Args:
        x: tensor of any shape.
        axis: axis that tells vectors apart.

    Returns:
        (rows, n).
    """
    if axis is None:
        return ops.reshape(x, (1, -1))
    x = ops.moveaxis(x, axis, 0)
    if len(x.shape) == 1:
        return ops.expand_dims(x, -1)
    if None in x.shape[1:]:
        return ops.reshape(x, (ops.shape(x)[0], -1))
    return ops.reshape(x, (-1, math.prod(x.shape[1:])))


def planes_of(scales, scheme: str, rank: int, axis: int | None) -> list:
    """Scales of each plane, shaped to be used with the tensor whose `rows` were solved.

    Args:
        scales: (rows, m) as `solve` returned them, or (1, m) for all rows.
        scheme: one of `SCHEMES`; "lst" uses its scale twice.
        rank: number of axes of the tensor.
        axis: axis that tells vectors apart, as given to `rows`.

    Returns:
        One tensor a plane, with `rank` axes of length 1 except `axis`.
    """
    shape = [1] * rank
    if axis is not None:
        shape[axis] = -1
    planes = [ops.reshape(scales[:, i], shape) for i in range(scales.shape[-1])]
    return planes * 2 if scheme == "lst" else planes


def binarize(x, planes: Sequence):
    """Weighted sum of the signs of successive residuals.

    Formula: `r_1 = x;  s_i = sign(r_i);  r_{i+1} = r_i - v_i s_i;  Q = sum_i v_i s_i`.

    Gradient, not the natural one: scales are constants, each sign has slope 1 where
    `|r_i| <= 1` (`m_i` = 1, else 0; the window does not scale with `v_i`), and the chain rule
    runs through the residuals:

        D_0 = 0;  D_i = D_{i-1} + v_i m_i (1 - D_{i-1});  dQ/dx = D_k

    NaN and infinities of `x` become NaN.

    Args:
        x: float tensor.
        planes: tensors `v_i` that broadcast against `x`, highest plane first.

    Returns:
        Tensor like `x`.

    Reference: arXiv 2001.02786, section 4 (foldable quantization); gradient of the authors'
    code.
    """
    x = ops.convert_to_tensor(x)
    return _binarizer(len(planes))(x, *(ops.stop_gradient(ops.cast(v, x.dtype)) for v in planes))


@functools.cache
def _binarizer(count: int):
    def forward(x, *planes):
        residual, value = x, 0.0
        for v in planes:
            signed = ops.where(residual >= 0, v, -v)
            value, residual = value + signed, residual - signed
        # NaN and infinities have some sign; the difference, else 0, makes them NaN.
        return value + (x - x)

    def backward(x, *rest):
        *planes, _, dy = rest
        residual, slope = x, 0.0
        for v in planes:
            window = ops.cast(ops.abs(residual) <= 1, x.dtype)
            slope = slope + v * window * (1 - slope)
            residual = residual - ops.where(residual >= 0, v, -v)
        return dy * slope, *[None] * count

    return fused(forward, backward)


def sign_bits(x, planes: Sequence) -> list:
    """The signs that `binarize` multiplies by the scales, as booleans (True means +1).

    Args:
        x: float tensor.
        planes: tensors `v_i` that broadcast against `x`, highest plane first.

    Returns:
        One boolean tensor a plane.
    """
    residual, bits = x, []
    for v in planes:
        v = ops.cast(v, x.dtype)
        bits.append(residual >= 0)
        residual = residual - ops.where(bits[-1], v, -v)
    return bits


def clamp(x, limit: float):
    """Clip to `[-limit, limit]`; gradient 1 inside, borders included, and 0 outside.

    `ops.clip` gives the borders gradient 1 on some backends and 1/2 on others.
    """
    clipped = ops.stop_gradient(ops.clip(x, -limit, limit))
    return ops.where(ops.abs(x) <= limit, x, clipped)


def average_scales(average, steps, batch, momentum: float, total=lambda *sums: sums):
    """Running average of the per-sample scales of an input.

    Formula: `b = mean of batch over samples`; the first batch is copied, `m = b`, later ones
    are averaged, `m = momentum * m + (1 - momentum) * b`. Samples whose scales are not finite
    are left out; a batch of nothing else changes nothing.

    Args:
        average: (m,) the average before this batch.
        steps: scalar, number of batches before this one.
        batch: (samples, m) scales of this batch.
        momentum: weight of the past.
        total: adds up sums over the parts of a batch that lie elsewhere.

    Returns:
        `(average, steps)` after this batch.

    Reference: arXiv 2001.02786, released code.
    """
    batch = ops.cast(ops.stop_gradient(batch), average.dtype)
    # x - x is 0 for finite numbers only.
    finite = ops.all(batch - batch == 0, axis=-1, keepdims=True)
    count = ops.sum(ops.cast(finite, average.dtype))
    count, values = total(count, ops.sum(ops.where(finite, batch, 0), axis=0))
    mean = values / ops.maximum(count, 1)
    mixed = momentum * average + (1 - momentum) * mean
    after = ops.where(steps > 0, mixed, mean)
    any_seen = count > 0
    return ops.where(any_seen, after, average), steps + ops.cast(any_seen, steps.dtype)


def _wide(x):
    """At least float32: half precision cannot hold squares of small weights."""
    return ops.cast(x, "float32") if ops.dtype(x) in ("float16", "bfloat16") else x


def _magnitudes(x):
    return ops.abs(ops.stop_gradient(_wide(x)))


def _normalised(a):
    """`(a / mean, mean)`, so that squares neither underflow nor overflow; zero rows stay zero."""
    mean = ops.mean(a, axis=-1, keepdims=True)
    mean = ops.where(mean == 0, ops.ones_like(mean), mean)
    return a / mean, mean


def _counts(a):
    """1, 2, ..., n as floats; n may be unknown in a graph."""
    return ops.cast(ops.arange(1, ops.shape(a)[-1] + 1), a.dtype)


def _prefix_sums(a, dtype):
    return ops.cumsum(ops.cast(a, dtype or a.dtype), axis=-1)


def _first_maximum(gain, dtype):
    """Number of elements up to and including the first maximum, (..., 1)."""
    return ops.expand_dims(ops.cast(ops.argmax(gain, axis=-1), dtype) + 1, -1)


def _mean_where(mask, a):
    """Mean of the elements under the mask, by a fresh sum: more exact than prefix sums."""
    chosen = ops.sum(ops.where(mask, a, 0), axis=-1, keepdims=True)
    count = ops.sum(ops.cast(mask, a.dtype), axis=-1, keepdims=True)
    return chosen / ops.maximum(count, 1)
