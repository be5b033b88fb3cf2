"""Straight-through gradients that every method shares."""

from keras import ops


def straight_through(x, value):
    """Return `value` in the forward pass and let the gradient of `x` through unchanged.

    Formula: `y = x + stop_gradient(value - x)`; `dy/dx = 1`.

    The subtraction may leave `y` an ulp away from `value`. Where the forward value must be
    exact, use `exact_straight_through`.
    """
    return x + ops.stop_gradient(value - x)


def exact_straight_through(x, value):
    """Return exactly `value`, with the gradient of `x`.

    Formula: `y = value + (x - stop_gradient(x))`. The bracket is +0 for every finite `x`, so
    no rounding of `value` can occur (adding +0 also keeps zero at +0).
    """
    return ops.stop_gradient(value) + (x - ops.stop_gradient(x))


def round_straight_through(x):
    """Round to nearest, ties to even, with gradient 1."""
    return exact_straight_through(x, ops.round(x))
