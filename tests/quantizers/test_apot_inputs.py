"""The APoT quantizer of inputs: range, sign and grid."""

import numpy as np
import pytest
import tensorflow as tf
from quantizer_states import infer, initial_state, updated
from quantizers.apot_for_tests import BATCH, INPUT, tensors

from kerasbits.quantizers.apot import APoT


def seen(quantizer, x, shrink=0.7):
    """State of an input that saw `x`, then trained its range."""
    state = initial_state(quantizer, INPUT)
    state = updated(state, quantizer.apply(x, state, INPUT, training=True)[1])
    return {**state, "range": np.float32(shrink)}


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("negative", [True, False])
def test_grid_is_quantize(bits, negative):
    quantizer = APoT(bits)
    x = BATCH if negative else np.abs(BATCH)
    state = seen(quantizer, x)
    grid = quantizer.grid(state, INPUT)
    assert grid.signed == (negative and bits > 1)
    assert grid.bits == bits
    assert grid.levels.dtype == np.int16
    assert grid.midpoints.dtype == np.float32
    codes = grid.codes(x)
    assert codes.max() < 2**bits
    np.testing.assert_array_equal(grid.values(codes), infer(quantizer, x, state, INPUT))
    assert grid.values(grid.codes(np.zeros(1))) == 0


def test_ties_agree_with_the_grid():
    quantizer = APoT(4, signed=False)
    state = {**seen(quantizer, np.abs(BATCH)), "range": np.float32(1), "range_unit": np.float32(1)}
    grid = quantizer.grid(state, INPUT)
    x = grid.midpoints.copy()
    y = infer(quantizer, x, state, INPUT)
    np.testing.assert_array_equal(grid.values(grid.codes(x)), y)
    np.testing.assert_array_equal(grid.codes(x), np.arange(len(x)))  # to the smaller level


def test_first_batch_sets_the_range():
    quantizer = APoT(4)
    state = initial_state(quantizer, INPUT)
    x = np.float32([[48, 36, 33, 12, 1, 0]]) / 16
    y, updates = quantizer.apply(x, state, INPUT, training=True)
    np.testing.assert_array_equal(y, x)  # exactly the levels of 4 unsigned bits
    state = updated(state, updates)
    assert (state["range_unit"], state["signed"], state["seen"]) == (3, 0, 1)
    assert updated(state, quantizer.apply(-9 * x, state, INPUT, training=True)[1])["signed"] == 0
    fresh = initial_state(quantizer, INPUT)
    assert updated(fresh, quantizer.apply(-x, fresh, INPUT, training=True)[1])["signed"] == 1


def test_unseen_input():
    quantizer = APoT(4)
    state = initial_state(quantizer, INPUT)
    with pytest.raises(ValueError, match=r"'fc', input.*calibrate"):
        quantizer.grid(state, INPUT)
    y, updates = quantizer.apply(np.full((1, 6), 5.0, np.float32), state, INPUT)
    np.testing.assert_allclose(y, 5, rtol=1e-6)
    assert updates == {}
    zeros, updates = quantizer.apply(np.zeros((1, 6), np.float32), state, INPUT, training=True)
    assert not np.asarray(zeros).any()
    assert updated(state, updates)["seen"] == 0
    nan, updates = quantizer.apply(np.full((1, 6), np.nan, np.float32), state, INPUT, training=True)
    assert np.isnan(np.asarray(nan)).all()
    assert updated(state, updates)["seen"] == 0


def test_inputs_are_always_clipped_in_the_gradient():
    quantizer = APoT(2, gradient="pass")
    state = tensors(seen(quantizer, np.abs(BATCH)))
    x = tf.constant([-1.0, 0.5, 50.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y, _ = quantizer.quantize(x, state, INPUT, training=True)
    np.testing.assert_allclose(tape.gradient(y, x), [0, 1, 0], rtol=1e-6)
