"""Gradients of Bayesian Bits."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from maths.bayesian_bits_for_tests import GATES, KAPPA, normal, tensor, value

from kerasbits.maths import bayesian_bits as bb
from kerasbits.maths import fused


def gradients(x, beta, signed, gates, channel_gate, upstream):
    with tf.GradientTape() as tape:
        tape.watch([x, beta, gates, channel_gate])
        y = bb.quantize_gated(x, beta, signed, gates, channel_gate)
    return tape.gradient(y, [x, beta, gates, channel_gate], upstream)


@pytest.mark.parametrize("signed", [0.0, 1.0])
def test_gradients_are_the_stated_ones(signed):
    beta, gates, z2 = 0.8, np.array([0.9, 0.6, 0.3, 0.7]), np.array([0.5, 1.0, 0.0])
    x = np.concatenate([normal((20, 3), 9, 0.7), [[-2, 2, 0.1], [3, -3, -0.1]]])
    up = normal(x.shape, 10, 1)
    got = gradients(tensor(x), tensor(beta), signed, tensor(gates), tensor(z2), tensor(up))

    lo, hi = -KAPPA * beta * signed, KAPPA * beta
    xc = np.clip(x, lo, hi)
    y = [
        value(bb.quantize_gated(tensor(x), tensor(beta), signed, tensor(g))) for g in GATES.values()
    ]
    e = np.diff(y, axis=0)
    chain = np.cumprod(gates)
    c = np.where(x >= hi, KAPPA, np.where(x <= lo, -KAPPA * signed, 0))
    fine = np.tensordot(chain, e, 1)
    close = {"rtol": 0, "atol": 1e-11}  # float64, sums of a few dozen terms
    np.testing.assert_allclose(value(got[0]), up * z2 * ((x > lo) & (x < hi)), **close)
    to_beta = (up * z2 * ((y[0] - xc) / beta + c + fine / beta)).sum()
    np.testing.assert_allclose(value(got[1]), to_beta, **close)
    for i in range(4):
        before = np.prod(gates[:i])
        after = e[i] + sum(np.prod(gates[i + 1 : j + 1]) * e[j] for j in range(i + 1, 4))
        np.testing.assert_allclose(value(got[2])[i], (up * z2 * before * after).sum(), **close)
    np.testing.assert_allclose(value(got[3]), (up * (y[0] + fine)).sum(0), **close)


def test_gate_gradient_equals_finite_difference():
    # The output is linear in each gate, so the difference quotient is exact.
    x, beta, up = tensor(normal((7, 3), 12)), tensor(0.8), tensor(normal((7, 3), 13))
    gates, z2 = np.array([0.7, 0.5, 0.4, 0.2]), tensor(np.array([0.3, 0.9, 0.6]))
    got = value(gradients(x, beta, 1.0, tensor(gates), z2, up)[2])
    for i in range(4):
        moved = gates + 0.25 * np.eye(4)[i]
        a, b = (bb.quantize_gated(x, beta, 1.0, tensor(g), z2) for g in (gates, moved))
        assert got[i] == pytest.approx(float(ops.sum(up * (b - a))) / 0.25, abs=1e-12)


def test_no_gradient_at_exact_borders():
    # The rectifier form of the reference: both borders count as clipped.
    beta = tensor(1.0)
    for signed, points in ((1.0, [KAPPA, -KAPPA, 1.0, -1.0]), (0.0, [KAPPA, 0.0, -1.0])):
        x = tensor(points)
        got = gradients(x, beta, signed, tensor(GATES[8]), tensor(1.0), tf.ones_like(x))
        assert not value(got[0]).any()
    x = tensor([1.0, -1.0])
    for k, sign in enumerate((1, -1)):
        up = tensor(np.eye(2)[k])
        got = gradients(x, beta, 1.0, tensor(GATES[32]), tensor(1.0), up)
        # beta moves a clipped element with it (up to the step of 32 bits).
        assert float(got[1]) == pytest.approx(sign * KAPPA, abs=1e-9)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_fixed_gradients(bits):
    x, beta, up = tensor(normal(50, 14)), tensor(0.8), tensor(normal(50, 15))
    with tf.GradientTape() as tape:
        tape.watch([x, beta])
        y = bb.quantize_fixed(x, beta, 1.0, tensor(bits))
    gx, gbeta = tape.gradient(y, [x, beta], up)
    gated = gradients(x, beta, 1.0, tensor(GATES[bits]), tensor(1.0), up)
    np.testing.assert_allclose(value(gx), value(gated[0]), atol=1e-12)
    assert float(gbeta) == pytest.approx(float(gated[1]), abs=1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("beta", [0.0, -1.0, 1e-30])
def test_vanishing_range(beta, dtype):
    for x in (np.zeros(6), np.array([0, 1, -1, 1e3, 1e-9, -1e-20])):
        got = gradients(
            tensor(x, dtype),
            tensor(beta, dtype),
            1.0,
            tensor([1, 0.5, 1, 1], dtype),
            tensor(1.0, dtype),
            tf.ones(6, dtype),
        )
        assert all(np.isfinite(value(g)).all() for g in got[:3])
        y = value(
            bb.quantize_gated(tensor(x, dtype), tensor(beta, dtype), 1.0, tensor(GATES[8], dtype))
        )
        assert np.abs(y).max() <= bb.SMALLEST_BETA
        assert not y[x == 0].any()


@pytest.mark.parametrize("moving", [(0, 0, 0, 0), (1, 0, 1, 0), (0, 1, 0, 1), (1, 1, 1, 1)])
def test_gates_of_large_tensors_get_what_those_of_their_parts_get(moving):
    # Large tensors are passed over once for each gate that moves, in a loop.
    shape, gates = (fused.SMALL // 256, 16, 16), tensor([0.9, 0.6, 0.3, 0.7])
    x, up = (tensor(normal(shape, seed, 1)) for seed in (3, 4))

    def gradient(x, up):
        with tf.GradientTape() as tape:
            tape.watch(gates)
            y = bb.quantize_once_fixed(x, 1.5, 1.0, gates, 0.5, 0.0, tensor(moving))
        return tape.gradient(y, gates, up)

    large = tf.function(gradient, autograph=False)(x, up)
    parts = sum(gradient(*part) for part in zip(tf.split(x, 2), tf.split(up, 2), strict=True))
    np.testing.assert_allclose(value(large), value(parts), rtol=1e-3, atol=1e-2)
    np.testing.assert_array_equal(value(large) != 0, np.array(moving) != 0)
