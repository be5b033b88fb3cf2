"""The expected cost of Bayesian Bits."""

import numpy as np
import pytest
import tensorflow as tf
from maths.bayesian_bits_for_tests import CUTOFF, normal, tensor, value

from kerasbits.maths import bayesian_bits as bb
from kerasbits.maths import hard_concrete as hc


def cost(phi, phi2, costs):
    on2 = None if phi2 is None else hc.probability_on(phi2)
    return bb.expected_cost(hc.probability_on(phi), on2, costs)


def test_regularizer_rises_with_every_gate():
    phi, phi2 = tensor(normal(4, 16, 2)), tensor(normal(7, 17, 2))
    with tf.GradientTape() as tape:
        tape.watch([phi, phi2])
        total = cost(phi, phi2, bb.WIDTHS)
    for g in tape.gradient(total, [phi, phi2]):
        assert (value(g) > 0).all()


def test_regularizer_limits():
    costs = [3.0 * b for b in bb.WIDTHS]
    opened, closed = tensor(np.full(4, 60.0)), tensor(np.full(4, -60.0))
    assert float(cost(opened, None, costs)) == pytest.approx(1 + 3 * sum(bb.WIDTHS[1:]))
    assert float(cost(closed, None, costs)) == pytest.approx(1)  # the constant first term
    half = tensor([60.0, -60.0])
    assert float(cost(opened, half, costs)) == pytest.approx(3 * sum(bb.WIDTHS) / 2)
    assert float(cost(opened, tensor([-60.0]), costs)) == pytest.approx(0, abs=1e-20)


def test_regularizer_still_pushes_cut_gates():
    phi = tensor([1.0, -2.5, 0.5, 0.5])
    x, up = tensor(normal(30, 18)), tensor(np.ones(30))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(phi)
        gates = hc.sample_gate(phi, tensor([0.5, 0.9, 0.5, 0.5])) * hc.uncut(phi, CUTOFF)
        y = bb.quantize_gated(x, tensor(1.0), 1.0, gates)
        total = cost(phi, None, bb.WIDTHS)
    assert value(gates)[1:].tolist() == [0, 0, 0]
    assert not value(tape.gradient(y, phi, up))[1:].any()
    assert (value(tape.gradient(total, phi)) > 0).all()


def test_regularizer_gradient_of_vanished_gates_is_finite():
    phi = tf.fill([4], -1e4)
    with tf.GradientTape() as tape:
        tape.watch(phi)
        total = cost(phi, None, bb.WIDTHS)
    assert np.isfinite(value(tape.gradient(total, phi))).all()
