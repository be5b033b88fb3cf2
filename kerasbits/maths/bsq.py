"""Bit-level sparsity quantization: every bit of every weight is trained.

A weight tensor is a scale s and `n` bit planes, each the difference of a positive and a negative
part with values in [0, 2]:

    r = sum_b (p_b - m_b) 2^b,    Z = round(r),    w = (s / L_n) Z,    L_n = 2^n - 1

Planes have the bit as first axis, lowest bit first. All functions take all `n_max` planes and
the current `n` as a scalar tensor; planes `b >= n` are masked, they are as good as absent. So a
change of `n` changes no shape and retraces nothing.

Reference: Yang, Duan, Chen, Li, "BSQ: Exploring bit-level sparsity for mixed-precision neural
network quantization", ICLR 2021, arXiv 2102.10462; details follow the authors' code.
"""

from __future__ import annotations

from keras import ops

from kerasbits.maths.gradients import exact_straight_through

LASSO_FLOOR = 1e-8
"""Added under the root of the group Lasso: the gradient of an all-zero plane is 0."""


def top_level(n, n_max: int):
    """`L_n = 2^n - 1`, exactly: as a sum of powers, since `2 ** n` rounds on some backends.

    Args:
        n: scalar tensor, whole bits of magnitude.
        n_max: number of planes.

    Returns:
        Scalar, dtype of `n`.
    """
    return ops.sum(_plane_values(n, n_max))


def plane_mask(n, n_max: int):
    """1 for the planes `b < n` in use, 0 for the others; (n_max,), dtype of `n`."""
    return ops.cast(ops.arange(n_max) < ops.cast(n, "int32"), n.dtype)


def split_planes(z, n_max: int):
    """Bits of whole numbers.

    Formula: `p_b = bit b of max(z, 0)`, `m_b = bit b of max(-z, 0)`.

    Args:
        z: whole numbers as floats, any shape, `|z| < 2^n_max`.
        n_max: number of planes.

    Returns:
        `(positive, negative)`, each (n_max, *shape) of 0 and 1, never both 1.

    Reference: arXiv 2102.10462, eq. 2.
    """
    magnitude = ops.abs(z)
    bits = ops.stack([_bit(magnitude, b) for b in range(n_max)])
    sign = ops.cast(z > 0, z.dtype)
    return bits * sign, bits * (1 - sign)


def from_weights(w, n: int):
    """Bits of float weights.

    Formula: `s = max|w|`, `Z = sign(w) round(|w| L_n / s)`; all-zero weights give s = 0 and n = 0.

    Args:
        w: float tensor.
        n: bits of magnitude to start with.

    Returns:
        `(z, s, n)`: whole numbers as floats, scalar value of the top level, scalar bits.

    Reference: arXiv 2102.10462, eq. 2.
    """
    s = ops.max(ops.abs(w))
    safe = ops.where(s > 0, s, ops.ones_like(s))
    z = ops.round(w / safe * (2**n - 1))
    return z, s, ops.where(s > 0, ops.ones_like(s) * n, ops.zeros_like(s))


def plane_sum(positive, negative, n):
    """`r = sum_{b < n} (p_b - m_b) 2^b`, real, in units of the step.

    Args:
        positive, negative: (n_max, *shape).
        n: scalar tensor.

    Returns:
        (*shape). An elementwise sum, not a matrix product, which accelerators may round.
    """
    values = _plane_values(ops.cast(n, positive.dtype), positive.shape[0])
    values = ops.reshape(values, (-1,) + (1,) * (len(positive.shape) - 1))
    return ops.sum((positive - negative) * values, axis=0)


def plane_codes(positive, negative, n, clamp_forward: bool = False):
    """`Z = clip(round(r), -L, L)`, ties to even.

    L is `L_{n_max}`: bits are at most 2, so only a layer at `n_max` bits is clipped, and
    re-quantization stores every Z. With `clamp_forward` L is `L_n`, as in the authors' code.

    Gradient, not the natural one: that of r, also where Z is clipped.

    Args:
        positive, negative: (n_max, *shape).
        n: scalar tensor.
        clamp_forward: clip to the present width.

    Returns:
        (*shape), whole numbers as floats.

    Reference: arXiv 2102.10462, eq. 3.
    """
    n_max = positive.shape[0]
    r = plane_sum(positive, negative, n)
    limit = top_level(ops.cast(n, r.dtype), n_max) if clamp_forward else 2.0**n_max - 1
    return exact_straight_through(r, _clip(ops.round(r), limit))


def latent_codes(w, n, n_max: int):
    """`Z = sign(w) round(min(|w|, 1) L_n)`: codes of a latent weight at fixed width.

    Gradient, not the natural one: `L_n`, also where |w| > 1.

    Args:
        w: latent weights, kept in [-1, 1] by their owner.
        n: scalar tensor.
        n_max: number of planes.

    Returns:
        Whole numbers as floats.

    Reference: arXiv 2102.10462, section 3.3 (finetuning).
    """
    top = top_level(ops.cast(n, w.dtype), n_max)
    return exact_straight_through(w * top, ops.round(_clip(w, 1.0) * top))


def step_size(s, n, n_max: int):
    """`delta = s / L_n`, value per unit of Z; s for n = 0, where every Z is 0.

    Args:
        s: scalar tensor, value of the top level.
        n: scalar tensor.
        n_max: number of planes.
    """
    return s / ops.maximum(top_level(ops.cast(n, s.dtype), n_max), 1)


def group_lasso(positive, negative, n):
    """`B = sum_{b < n} sqrt(sum over elements of (p_b^2 + m_b^2) + 1e-8)`.

    Args:
        positive, negative: (n_max, *shape).
        n: scalar tensor.

    Returns:
        Scalar. Masked planes have neither value nor gradient. The loss weighs it by
        `n #Para(l) / #Para(all)`, so that large and wide layers pay more.

    Reference: arXiv 2102.10462, eq. 4 and 5.
    """
    axes = tuple(range(1, len(positive.shape)))
    squares = ops.sum(ops.square(positive) + ops.square(negative), axis=axes)
    norms = ops.sqrt(squares + LASSO_FLOOR)
    return ops.sum(norms * plane_mask(ops.cast(n, norms.dtype), positive.shape[0]))


def requantize(z, s, n, n_max: int):
    """Let a layer grow by one bit if its values need it.

    Formula: `n >= n_max`: Z is clipped to `+-L_n`. Else, if `max|Z| > L_n`: `s <- s L_{n+1} / L_n`,
    `n <- n + 1`, so the step stays.

    Args:
        z: whole numbers as floats.
        s, n: scalar tensors.
        n_max: greatest width.

    Returns:
        `(z, s, n)`.

    Reference: arXiv 2102.10462, section 3.2 (re-quantization).
    """
    top = top_level(n, n_max)
    z = ops.where(n >= n_max, _clip(z, top), z)
    grows = ops.max(ops.abs(z)) > top
    # top is 0 only if n is 0, where every z is 0 and nothing grows.
    ratio = (2 * top + 1) / ops.maximum(top, 1)
    return z, ops.where(grows, s * ops.cast(ratio, s.dtype), s), n + ops.cast(grows, n.dtype)


def trim(z, s, n, n_max: int):
    """Drop empty planes at the top and at the bottom; the weights stay exactly what they are.

    Formula: with t the lowest and h the highest plane in use, `n' = h - t + 1`, `Z' = Z / 2^t`,
    `s' = s 2^t L_{n'} / L_n`. No plane in use: `n' = 0`, `s' = 0`. Idempotent.

    Args:
        z: whole numbers as floats, `|z| < 2^n_max`.
        s, n: scalar tensors.
        n_max: number of planes.

    Returns:
        `(z, s, n)`.

    Reference: arXiv 2102.10462, section 3.2 (precision adjustment).
    """
    magnitude = ops.abs(z)
    used = ops.stack([ops.max(_bit(magnitude, b)) for b in range(n_max)])
    lowest = ops.argmax(used)
    width = n_max - ops.argmax(ops.flip(used)) - lowest
    kept = ops.cast(width, n.dtype) * ops.cast(ops.max(used), n.dtype)
    # 2^t as a sum of powers, exact on every backend.
    shift = top_level(ops.cast(lowest, z.dtype), n_max) + 1
    ratio = top_level(kept, n_max) / ops.maximum(top_level(n, n_max), 1)
    return z / shift, s * ops.cast(shift, s.dtype) * ops.cast(ratio, s.dtype), kept


def _plane_values(n, n_max: int):
    """`2^b` for planes in use, 0 for masked ones; exact."""
    powers = ops.convert_to_tensor([2.0**b for b in range(n_max)], dtype=n.dtype)
    return powers * plane_mask(n, n_max)


def _bit(magnitude, b: int):
    """Bit b of non-negative whole numbers held as floats."""
    return ops.floor(magnitude / 2**b) - 2 * ops.floor(magnitude / 2 ** (b + 1))


def _clip(x, limit):
    return ops.maximum(ops.minimum(x, limit), -limit)
