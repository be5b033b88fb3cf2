"""Hard concrete gates: random numbers in [0, 1] that are exactly 0 or 1 with finite probability.

A gate with parameter `phi` is a logistic random number, squashed by a sigmoid of temperature
`TEMPERATURE`, stretched from (0, 1) to `(LEFT, RIGHT)` and clipped back to [0, 1].

Reference: Louizos, Welling, Kingma, "Learning sparse neural networks through L0
regularization", arXiv 1712.01312, section 2.2 and eq. 10-12; constants as in van Baalen et al.,
"Bayesian Bits", arXiv 2005.07093.
"""

from __future__ import annotations

import math

from keras import ops

TEMPERATURE = 2 / 3
LEFT = -0.1
RIGHT = 1.1

CLOSING_PROBABILITY = 0.34
"""A gate is open at inference if the probability that its sample is 0 is below this."""

NOISE_MARGIN = 1e-6
"""Uniform noise is kept this far from 0 and 1, where its logit is infinite."""

_ZERO_LOGIT = TEMPERATURE * math.log(-LEFT / RIGHT)  # -1.598597: logit of P(z = 0) at phi = 0


def probability_on(phi):
    """Probability that the gate is not exactly 0.

    Formula: `P(z > 0) = sigmoid(phi - tau * ln(-LEFT / RIGHT)) = sigmoid(phi + 1.598597)`.

    Args:
        phi: gate parameters, any shape.

    Returns:
        Probabilities, shape of `phi`.

    Reference: arXiv 1712.01312, eq. 12.
    """
    return ops.sigmoid(phi - _ZERO_LOGIT)


def sample_gate(phi, u):
    """A gate sample for given uniform noise.

    Formula: `s = sigmoid((ln u - ln(1 - u) + phi) / tau)`,
    `z = clip(s * (RIGHT - LEFT) + LEFT, 0, 1)`.

    Gradient: `dz/dphi = (RIGHT - LEFT) * s * (1 - s) / tau` where `0 < z < 1`, else 0, also
    where the stretched value is exactly 0 or 1.

    Args:
        phi: gate parameters, any shape.
        u: noise, uniform on (0, 1), shape of `phi`; clipped to `NOISE_MARGIN` from both ends.

    Returns:
        Gates in [0, 1], shape of `phi`.

    Reference: arXiv 1712.01312, eq. 10-11.
    """
    u = ops.clip(u, NOISE_MARGIN, 1 - NOISE_MARGIN)
    return _stretch(ops.sigmoid((ops.log(u) - ops.log1p(-u) + phi) / TEMPERATURE))


def noise_free_gate(phi):
    """The gate at the median of its noise, `sample_gate(phi, 0.5)`; same gradient rule.

    Formula: `z = clip(sigmoid(phi / tau) * (RIGHT - LEFT) + LEFT, 0, 1)`.
    """
    return _stretch(ops.sigmoid(phi / TEMPERATURE))


def _stretch(s):
    z = s * (RIGHT - LEFT) + LEFT
    return ops.where(ops.logical_and(z > 0, z < 1), z, ops.stop_gradient(ops.clip(z, 0.0, 1.0)))


def inference_gate(phi):
    """The gate used at inference: 1 if `P(z = 0) < CLOSING_PROBABILITY`, else 0.

    Equivalent: `phi > -0.9353026`. No gradient.

    Args:
        phi: gate parameters, any shape.

    Returns:
        0 or 1 in the dtype and shape of `phi`.

    Reference: arXiv 2005.07093, section 2; the threshold is that of the authors' code.
    """
    return ops.cast(ops.sigmoid(_ZERO_LOGIT - phi) < CLOSING_PROBABILITY, phi.dtype)


def uncut(phi, cutoff: float | None):
    """Mask of a chain of gates: 0 from the first parameter at or below `cutoff` onwards.

    A gate that is cut gets no gradient from the task, so cutting is final unless something else
    raises its parameter.

    Args:
        phi: (n,) parameters in the order of the chain.
        cutoff: the border, or None for no cut.

    Returns:
        (n,) 0 or 1, dtype of `phi`, no gradient.
    """
    if cutoff is None:
        return ops.ones_like(phi)
    return ops.cumprod(ops.cast(ops.stop_gradient(phi) > cutoff, phi.dtype))
