"""Bayesian Bits: a uniform quantizer taken apart into gated residuals of doubling width.

A 2-bit quantization is refined by the quantized residual to 4, 8, 16 and 32 bits. A gate in
[0, 1] scales each refinement together with all finer ones; a further gate, one a channel, scales
the whole. Closing gates lowers the width; closing the outermost one prunes the channel.

Symbols: `beta` is the learned border of the range (value), `signed` is 1 for a range
`[-beta, beta]` and 0 for `[0, beta]`, `s_b` is the step of the b-bit grid (value per code step).

Reference: van Baalen et al., "Bayesian Bits: unifying quantization and pruning", NeurIPS 2020,
arXiv 2005.07093; details the paper leaves open follow the authors' code.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from keras import ops

from kerasbits.maths.fused import fused, is_small, partial_sum, rows_in_turn
from kerasbits.maths.gradients import exact_straight_through

WIDTHS = (2, 4, 8, 16, 32)
"""Widths in bits. Gates belong to all but the first."""

SHRINK = 1 - 1e-7
"""The range is clipped to this fraction, so that no border value rounds out of the code range.
Two ulps below 1 in float32, equal to 1 in half precision: compute in float32 or better."""

SMALLEST_BETA = 1e-8
"""Narrower (or negative) ranges are widened to this, which keeps all divisions finite."""

MOST_ROUNDED_BITS = 16
"""Wider grids are finer than float32: values are clipped to the range, and that is all."""


def clip_to_range(x, beta, signed):
    """Clip to the range, a hair inside it.

    Formula: `hi = SHRINK * beta`, `lo = -hi` if signed else 0, `xc = min(max(x, lo), hi)`.

    Gradient: to `x` 1 in the open interval `(lo, hi)` and 0 elsewhere, borders included; to
    `beta` `SHRINK` where `x >= hi`, `-SHRINK` where `x <= lo` and signed, else 0.

    Args:
        x: float tensor, any shape.
        beta: scalar, in values of `x`.
        signed: scalar, 0 or 1.

    Returns:
        The clipped tensor.
    """
    lo, hi = _borders(beta, signed, x.dtype)
    return ops.where(x >= hi, hi, ops.where(x <= lo, lo, x))


def clip_borders(beta, signed):
    """The borders `(lo, hi)` of `clip_to_range`, in the dtype of the tensor `beta`."""
    return _borders(beta, signed, beta.dtype)


def _borders(beta, signed, dtype):
    hi = SHRINK * _guarded(beta, dtype)
    return (0.0 - ops.cast(signed, dtype)) * hi, hi


def _guarded(beta, dtype):
    return ops.maximum(ops.cast(beta, dtype), SMALLEST_BETA)


def grid_steps(beta, signed):
    """Steps of the grids of all widths.

    Formula: `s_2 = beta * (1 + signed) / 3`, `s_2b = s_b / (2^b + 1)`; hence
    `s_b = range / (2^b - 1)`.

    Args:
        beta: scalar tensor, in values.
        signed: scalar, 0 or 1.

    Returns:
        Five scalars for `WIDTHS`, value per code step, dtype of `beta`.

    Reference: arXiv 2005.07093, section 2.
    """
    steps = [_guarded(beta, beta.dtype) * (1 + ops.cast(signed, beta.dtype)) / 3]
    for b in WIDTHS[:-1]:
        steps.append(steps[-1] / (2**b + 1))
    return steps


def quantize_gated(x, beta, signed, gates, channel_gate=1.0):
    """Sum of the 2-bit quantization and the gated residuals.

    Formula, with `xc` the clipped `x`:
    `x_2 = s_2 * round(xc / s_2)`,
    `e_b = s_b * round((xc - x_2 - e_4 - ... ) / s_b)` (from ungated earlier terms),
    `x_q = z_2 * (x_2 + z_4 * (e_4 + z_8 * (e_8 + z_16 * (e_16 + z_32 * e_32))))`.

    Gradient: rounding is straight-through, so to `x` it is `z_2` inside the range and 0 outside;
    to `beta` `z_2 * ((x_2 - xc) / beta + c + (z_4 e_4 + z_4 z_8 e_8 + ...) / beta)` with `c` the
    gradient of `clip_to_range`; to a gate, the bracket it multiplies.

    Args:
        x: float tensor, any shape.
        beta: scalar, in values of `x`.
        signed: scalar, 0 or 1.
        gates: (4,) gates of 4, 8, 16 and 32 bits.
        channel_gate: `z_2`, broadcastable to `x`; a scalar gets no gradient.

    Returns:
        The quantized tensor, shape of `x`. At 32 bits in float32 the grid is finer than the
        numbers and the result is the clipped tensor up to rounding.

    Reference: arXiv 2005.07093, section 2.
    """
    return quantize_once_fixed(x, beta, signed, gates, channel_gate, 0.0)


def quantize_once_fixed(x, beta, signed, gates, channel_gate, bits, moving=None):
    """`quantize_gated`, or from the moment that bits are fixed `channel_gate * quantize_fixed`.

    Gradient: of the formula in force.

    Args:
        x, beta, signed, gates, channel_gate: as in `quantize_gated`.
        bits: scalar, one of `WIDTHS`, or 0 and less while gates are in force; above 16 bits are
            finer than float32, so that the result is the clipped tensor.
        moving: (4,) 0 for the gates whose gradient goes nowhere, which need not be found.

    Returns:
        The quantized tensor, shape of `x`.
    """
    x = ops.convert_to_tensor(x)
    values = (ops.cast(v, x.dtype) for v in (beta, signed, gates, channel_gate, bits))
    beta, signed, gates, channel_gate, bits = values
    moving = ops.ones_like(gates) if moving is None else ops.cast(moving, x.dtype)
    wide = ops.maximum(bits, float(WIDTHS[0]))  # Before fixing it is not used, but divided by.
    grid = _all_steps()(*(ops.stop_gradient(v) for v in (beta, signed, wide)))
    return _quantizer()(x, beta, signed, gates, channel_gate, bits, moving, *grid)


@functools.cache
def _all_steps():
    """The five steps, the one for `bits`, and the largest code of `bits`."""

    def steps(beta, signed, bits):
        every = grid_steps(beta, signed)
        return *every, select_width(every, bits), top_code(bits, signed)

    return steps


def _residuals(clipped, steps):
    """The 2-bit quantization and the four residuals, from ungated earlier terms."""
    found, rest = [], clipped
    for i in range(len(WIDTHS)):
        found.append(steps[i] * ops.round(rest / steps[i]))
        rest = rest - found[-1]
    return found


def _gated(terms, gates):
    coarse, *residuals = terms
    total = residuals[-1]
    for gate, residual in zip(gates[:0:-1], residuals[-2::-1], strict=True):
        total = residual + gate * total
    return coarse + gates[0] * total


@functools.cache
def _quantizer():
    def forward(x, beta, signed, gates, channel_gate, bits, moving, *grid):
        clipped, (*steps, step, top) = clip_to_range(x, beta, signed), grid
        gated = _gated(_residuals(clipped, steps), ops.unstack(gates))
        code = ops.minimum(ops.maximum(ops.round(clipped / step), -top), top)
        whole = ops.where(bits > MOST_ROUNDED_BITS, clipped, step * code)
        # Plus 0: no grid has a negative zero.
        return channel_gate * (ops.where(bits > 0, whole, gated) + 0.0)

    def backward(x, beta, signed, gates, channel_gate, bits, moving, *rest):
        *steps, _, _, y, dy = rest
        lo, hi = _borders(beta, signed, x.dtype)
        outside, zero = ops.logical_or(x >= hi, x <= lo), ops.zeros_like(x)
        dx = ops.where(outside, zero, dy * channel_gate)

        def slope(x, y, dy, gate):
            # A clipped value has the slope of its border and (y - xc) / beta.
            outside = ops.logical_or(x >= hi, x <= lo)
            return dy * (y - gate * ops.where(outside, ops.zeros_like(x), x))

        gate = ops.broadcast_to(channel_gate, ops.shape(x))
        limit = ops.cast(beta >= SMALLEST_BETA, x.dtype)
        dbeta = limit * partial_sum(slope, (x, y, dy, gate), beta) / _guarded(beta, x.dtype)

        live = ops.cast(bits <= 0, x.dtype)
        weights = _chain_derivatives(gates) * ops.expand_dims(live * moving, -1)
        if len(channel_gate.shape) == 0 and not is_small(x):
            dgates = _gates_in_turn(x, beta, signed, channel_gate, steps, dy, weights)
            return dx, dbeta, None, dgates, *[None] * 10
        terms = _residuals(clip_to_range(x, beta, signed), steps)
        upstream = dy * channel_gate
        sums = ops.stack([ops.sum(upstream * residual) for residual in terms[1:]])
        dgates, dchannel = ops.sum(weights * sums, axis=1), None
        if len(channel_gate.shape) > 0:
            gated = dy * _gated(terms, ops.unstack(gates))
            dchannel = live * partial_sum(lambda t: t, (gated,), channel_gate)
        return dx, dbeta, None, dgates, dchannel, *[None] * 9

    return fused(forward, backward, tables=(2, 5))  # gates, and which of them move


def _chain_derivatives(gates):
    """Row i: the derivatives of `(z_4, z_4 z_8, z_4 z_8 z_16, ...)` to gate i, (4, 4)."""
    at = ops.arange(len(WIDTHS) - 1)
    row, column = ops.expand_dims(at, 1), ops.expand_dims(at, 0)
    products = ops.cumprod(ops.where(row == column, ops.ones_like(gates), gates), axis=1)
    return ops.where(row <= column, products, ops.zeros_like(products))


def _gates_in_turn(x, beta, signed, gate, steps, dy, weights):
    """`sum(dy gate (w_4 e_4 + ... + w_32 e_32))` of each row w, (4,).

    Most gates are wide open or shut in a step, and a pass over a large tensor is dear.
    """

    def total(row, beta):
        def slope(x, dy):
            _, *residuals = _residuals(clip_to_range(x, beta, signed), steps)
            return dy * sum(w * e for w, e in zip(ops.unstack(row), residuals, strict=True))

        # A factor between the sums keeps a compiler from making them one.
        return ops.sum(gate * partial_sum(slope, (x, dy), beta))

    return rows_in_turn(total, weights, beta)


def select_width(values: Sequence, bits):
    """The entry of `values` (one for each of `WIDTHS`) for the scalar tensor `bits`, else 0."""
    # A selection, since computing 2^b is not exact under XLA.
    chosen = ops.equal(ops.convert_to_tensor(WIDTHS, "float32"), ops.cast(bits, "float32"))
    values = ops.stack([ops.cast(v, bits.dtype) for v in values], axis=-1)
    return ops.sum(ops.where(chosen, values, ops.zeros_like(values)), axis=-1)


def top_code(bits, signed):
    """Largest code of a grid: `2^(b-1) - 1` if signed, else `2^b - 1`.

    Args:
        bits: scalar tensor, one of `WIDTHS`.
        signed: scalar, 0 or 1.

    Returns:
        Scalar, dtype of `bits`.
    """
    half = select_width([2.0 ** (b - 1) for b in WIDTHS], bits)
    return half - 1 + (1 - ops.cast(signed, half.dtype)) * half


def fixed_codes(x, beta, signed, bits):
    """Signed whole-number codes of a tensor at one fixed width.

    Formula: `k = round(clip_to_range(x) / s_b)`; `-(2^(b-1) - 1) .. 2^(b-1) - 1` if signed, else
    `0 .. 2^b - 1`. Straight-through gradient.

    Args:
        x: float tensor, any shape.
        beta: scalar, in values of `x`.
        signed: scalar, 0 or 1.
        bits: scalar, one of `WIDTHS`.

    Returns:
        `(k, s_b)`: float tensor of codes, shape of `x`, and the step. NaN stays NaN.
    """
    bits = ops.cast(bits, x.dtype)
    step = select_width(grid_steps(ops.cast(beta, x.dtype), signed), bits)
    position = clip_to_range(x, beta, signed) / step
    # In float32 the rounding of a 16-bit step can exceed the hair that SHRINK leaves.
    top = top_code(bits, signed)
    codes = ops.minimum(ops.maximum(ops.round(position), -top), top)
    return exact_straight_through(position, codes), step


def quantize_fixed(x, beta, signed, bits):
    """Uniform quantization at one width, what the gated form is with gates open up to `bits`.

    Formula: `x_b = s_b * round(clip_to_range(x) / s_b)`.

    Gradient: to `x` 1 inside the range, else 0; to `beta` `(x_b - xc) / beta + c`.

    Args and errors as `fixed_codes`.

    Returns:
        The quantized tensor, shape of `x`.

    Reference: arXiv 2005.07093, section 2.
    """
    codes, step = fixed_codes(x, beta, signed, bits)
    return step * codes


def effective_bits(gates):
    """Width that a chain of open (1) and closed (0) gates selects.

    Formula: `2 + 2 z_4 + 4 z_4 z_8 + 8 z_4 z_8 z_16 + 16 z_4 z_8 z_16 z_32`: double 2 for each
    open gate, stop at the first closed one.

    Args:
        gates: (4,) 0 or 1, gates of 4, 8, 16 and 32 bits.

    Returns:
        Scalar, in bits.
    """
    bits, chain = WIDTHS[0], 1.0
    for i, b in enumerate(WIDTHS[:-1]):
        chain = chain * gates[i]
        bits = bits + b * chain
    return bits


def expected_cost(on, channel_on, costs):
    """Regularizer: the expected cost of all terms that are switched on.

    Formula: `R = mean_i q_2i * (c_2 + c_4 q_4 + c_8 q_4 q_8 + c_16 q_4 q_8 q_16 + ...)`; `q_b` is
    the probability that gate b is on (`hard_concrete.probability_on`). Without pruning gates the
    first term is a constant, by the authors' code 1: `R = 1 + c_4 q_4 + c_8 q_4 q_8 + ...`

    Args:
        on: (4,) probabilities of the gates 4, 8, 16 and 32.
        channel_on: (C,) probabilities of the pruning gates; None if there are none.
        costs: (5,) of the widths, constants: 1 each, or `b * share`, as bit operations go.

    Returns:
        Scalar.

    Reference: arXiv 2005.07093, section 2 (what is left without the posterior's entropy).
    """
    costs = ops.cast(costs, on.dtype)

    @ops.custom_gradient
    def refined(on, costs):
        # The gradient of cumprod would divide by probabilities, which may be 0.
        def gradient(dy):
            return dy * ops.sum(_chain_derivatives(on) * costs, axis=1), None

        return ops.sum(costs * ops.cumprod(on)), gradient

    total = (1.0 if channel_on is None else costs[0]) + refined(on, costs[1:])
    return total if channel_on is None else ops.mean(channel_on) * total
