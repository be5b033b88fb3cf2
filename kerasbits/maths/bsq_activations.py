"""Activation quantizers that accompany BSQ: a dynamic maximum, and a trainable clip (PACT).

The authors quantize activations to a fixed width a: ReLU6 for a > 3, the PACT clip for a <= 3,
each followed by `quantize_to_maximum`.

Reference: Yang et al., arXiv 2102.10462, section 4.1, and the authors' code; the clip is from
Choi et al., "PACT: Parameterized clipping activation for quantized neural networks",
arXiv 1805.06085.
"""

from __future__ import annotations

from keras import ops

from kerasbits.maths.gradients import exact_straight_through


def quantize_to_maximum(x, bits: int, maximum=None):
    """Quantize magnitudes to `2^bits - 1` steps of a range.

    Formula: `y = S round(min(|x|, S) L / S) / L sign(x)` with `L = 2^bits - 1`.

    Gradient, not the natural one: 1 everywhere.

    Args:
        x: float tensor.
        bits: width a; 0 leaves x as it is.
        maximum: scalar S in values of `x`, as `average_maximum` keeps it. None takes `max|x|`,
            as the authors do, which makes each output depend on the whole batch.

    Returns:
        Tensor like `x`; 0 where S is 0.
    """
    if bits == 0:
        return x
    top = 2.0**bits - 1
    maximum = ops.max(ops.abs(x)) if maximum is None else ops.cast(maximum, x.dtype)
    maximum = ops.stop_gradient(maximum)
    safe = ops.where(maximum > 0, maximum, ops.ones_like(maximum))
    inside = ops.maximum(ops.minimum(x, maximum), -maximum)
    value = maximum * ops.round(inside * top / safe) / top
    return exact_straight_through(x, value)


def average_maximum(average, steps, x, momentum: float = 0.99):
    """Running average of `max|x|`, for a range that does not depend on the batch.

    Formula: first batch `S = max|x|`, then `S = momentum * S + (1 - momentum) * max|x|`.

    Args:
        average: scalar, average before this batch.
        steps: scalar, number of batches before this one.
        x: float tensor.
        momentum: weight of the past.

    Returns:
        `(average, steps)` after this batch.
    """
    now = ops.cast(ops.stop_gradient(ops.max(ops.abs(x))), average.dtype)
    mixed = momentum * average + (1 - momentum) * now
    return ops.where(steps > 0, mixed, now), steps + 1


def pact_clip(x, alpha):
    """`y = min(max(x, 0), alpha)`.

    Gradient: to `x` 1 in `[0, alpha]`, borders included, else 0; to `alpha` 1 where
    `x >= alpha`, else 0.

    Args:
        x: float tensor.
        alpha: positive scalar, in values of `x`; the authors start at 10.

    Returns:
        Tensor like `x`.

    Reference: arXiv 1805.06085, eq. 1 and 3.
    """
    alpha = ops.cast(alpha, x.dtype)
    inside = ops.cast(ops.logical_and(x >= 0, x <= alpha), x.dtype)
    above = ops.cast(x >= alpha, x.dtype)
    value = ops.stop_gradient(ops.minimum(ops.maximum(x, 0), alpha))
    return value + (x - ops.stop_gradient(x)) * inside + (alpha - ops.stop_gradient(alpha)) * above
