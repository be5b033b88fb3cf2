"""The BitPruning quantizer of inputs: ranges, grid and graph."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from quantizer_states import infer, initial_state, ulp_of_top, updated
from quantizers.bitpruning_for_tests import BATCH, INPUT, frozen, tensors

from kerasbits.quantizers.bitpruning import DECAY, BitPruning


def test_ema_trains_on_the_batch_and_infers_on_the_average():
    quantizer = BitPruning(2.0)
    state = initial_state(quantizer, INPUT)
    first = np.float32([[0.0, 1.0, 2.0, 3.0, 1.0, 2.0]])
    y, updates = quantizer.apply(first, state, INPUT, training=True)
    np.testing.assert_array_equal(y, first)
    state = updated(state, updates)
    assert (state["lo"], state["hi"], state["seen"]) == (0, 3, 1)
    y, updates = quantizer.apply(first * 2, state, INPUT, training=True)
    np.testing.assert_array_equal(y, first * 2)  # the batch's own range
    state = updated(state, updates)
    assert state["hi"] == pytest.approx(3 * DECAY + 6 * (1 - DECAY), rel=1e-6)
    y, updates = quantizer.apply(first * 2, state, INPUT)
    assert updates == {}
    assert float(ops.max(y)) == pytest.approx(float(state["hi"]), rel=1e-6)  # clipped


def test_fixed_range_stays_and_clips():
    quantizer = BitPruning(2.0, range_mode="fixed")
    state = initial_state(quantizer, INPUT)
    state = updated(state, quantizer.apply(np.float32([[0, 3.0]]), state, INPUT, training=True)[1])
    x = tf.constant([[-1.0, 1.2, 9.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y, updates = quantizer.apply(x, tensors(state), INPUT, training=True)
    np.testing.assert_array_equal(y, [[0, 1, 3]])
    np.testing.assert_array_equal(tape.gradient(y, x), [[0, 1, 0]])
    after = updated(state, updates)
    assert (after["lo"], after["hi"]) == (0, 3)


def test_batch_mode_always_takes_the_batch():
    quantizer = BitPruning(1.0, range_mode="batch")
    state = initial_state(quantizer, INPUT)
    assert quantizer.observe(BATCH, state, INPUT) == {}
    for scale in (1, 5):
        y, updates = quantizer.apply(np.float32([[0, 0.9 * scale, scale]]), state, INPUT)
        np.testing.assert_array_equal(y, [[0, scale, scale]])
        assert updates == {}
    with pytest.raises(ValueError, match=r"'fc', input: expected range_mode.*'batch'"):
        quantizer.grid(state, INPUT)


def test_calibration_keeps_both_ends():
    quantizer = BitPruning()
    state = initial_state(quantizer, INPUT)
    for batch in ([1.0, 2.0], [-3.0, 0.0], [np.nan, 50.0], [1.5, 1.5]):
        state = updated(state, quantizer.observe(np.float32(batch), state, INPUT))
    assert (state["lo"], state["hi"], state["seen"]) == (-3, 2, 1)


@pytest.mark.parametrize("range_mode", ["ema", "fixed"])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_useless_first_batch_does_not_poison(range_mode, value):
    quantizer = BitPruning(range_mode=range_mode)
    state = initial_state(quantizer, INPUT)
    y, updates = quantizer.apply(np.full((2, 6), value, np.float32), state, INPUT, training=True)
    if value == 0:
        np.testing.assert_array_equal(y, 0)
    if np.isnan(value):
        assert np.isnan(np.asarray(y)).all()
    state = updated(state, updates)
    assert state["seen"] == 0
    state = updated(state, quantizer.apply(BATCH, state, INPUT, training=True)[1])
    assert (state["lo"], state["hi"], state["seen"]) == (BATCH.min(), BATCH.max(), 1)


def test_nan_batch_leaves_the_average_alone():
    quantizer = BitPruning()
    state = updated(
        initial_state(quantizer, INPUT),
        quantizer.observe(BATCH, initial_state(quantizer, INPUT), INPUT),
    )
    bad = BATCH.copy()
    bad[0, 0] = np.nan
    y, updates = quantizer.apply(bad, state, INPUT, training=True)
    assert np.isnan(np.asarray(y)[0, 0])
    after = updated(state, updates)
    assert (after["lo"], after["hi"]) == (BATCH.min(), BATCH.max())


def test_inference_before_any_training():
    quantizer = BitPruning(16.0)
    state = initial_state(quantizer, INPUT)
    y, updates = quantizer.apply(BATCH, state, INPUT)
    np.testing.assert_allclose(y, BATCH, atol=np.ptp(BATCH) / 2**16)  # half a step and rounding
    assert updates == {}
    with pytest.raises(ValueError, match=r"'fc', input.*calibrate"):
        quantizer.grid(state, INPUT)


@pytest.mark.parametrize("zero_point", ["real", "integer"])
@pytest.mark.parametrize("bits", [1.0, 3.3, 8.0, 16.0])
def test_grid_is_quantize(zero_point, bits):
    quantizer = BitPruning(bits, zero_point=zero_point)
    state = initial_state(quantizer, INPUT)
    state = updated(state, quantizer.observe(BATCH[:4], state, INPUT))
    state = frozen(quantizer, state, INPUT)
    grid = quantizer.grid(state, INPUT)
    assert grid.bits == np.ceil(bits)
    codes = grid.codes(BATCH)  # some are outside the range of the first rows
    assert codes.max() < 2**grid.bits
    np.testing.assert_array_equal(grid.values(codes), infer(quantizer, BATCH, state, INPUT))
    if zero_point == "integer":
        assert grid.values(grid.codes(np.zeros(1))) == 0


def test_grid_of_a_constant_input():
    quantizer = BitPruning(4.0)
    state = initial_state(quantizer, INPUT)
    x = np.full((2, 6), 2.5, np.float32)
    state = updated(state, quantizer.apply(x, state, INPUT, training=True)[1])
    grid = quantizer.grid(state, INPUT)
    np.testing.assert_array_equal(grid.values(grid.codes(x)), x)


@pytest.mark.parametrize("jit", [False, True])
def test_graph_and_jit(jit):
    quantizer = BitPruning(3.5)
    state = tensors(initial_state(quantizer, INPUT))

    @tf.function(jit_compile=jit)
    def step(x, state):
        y, updates = quantizer.apply(x, state, INPUT, training=True)
        return y, updates, quantizer.loss(state, INPUT), quantizer.widths(state, INPUT)

    traces = 0
    for n in (3.5, 6.25, 0.5, 99.0):  # other bits need no rebuild
        state["bits"] = tf.constant(n)
        y, updates, loss, width = step(tf.constant(BATCH), state)
        want, want_updates = quantizer.apply(tf.constant(BATCH), state, INPUT, training=True)
        # XLA may fuse products and sums: a few ulp of the top level.
        np.testing.assert_allclose(y, want, rtol=0, atol=4 * ulp_of_top(BATCH))
        for name in want_updates:
            np.testing.assert_array_equal(updates[name], want_updates[name])
        assert float(width) == min(max(n, 1), 16)
        assert float(loss) == pytest.approx(0.1 * float(width), rel=1e-6)
        traces = step.experimental_get_tracing_count()
    assert traces == 1
