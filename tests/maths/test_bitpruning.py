"""BitPruning by hand and by law."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from maths.bitpruning_for_tests import f64, gradients, run

from kerasbits.maths import bitpruning


def on_data(v, n, **kwargs):
    return run(v, n, np.min(v), np.max(v), **kwargs)


def samples(shape=(40,), seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# By hand.


def test_two_bits_by_hand():
    # lo -1, step 1: levels -1, 0, 1, 2; ties -0.5 -> code 0, 0.5 -> code 2, 1.5 -> code 2.
    v = [-1.0, -0.5, 0.4, 0.5, 1.5, 2.0]
    np.testing.assert_array_equal(run(v, 2.0, -1.0, 2.0), [-1, -1, 0, 1, 1, 2])


def test_half_way_between_one_and_two_bits_by_hand():
    # One bit: {0, 3}; two bits: {0, 1, 2, 3}.
    np.testing.assert_array_equal(run([0.0, 1.2, 2.0, 3.0], 1.5, 0.0, 3.0), [0, 0.5, 2.5, 3])


def test_whole_zero_by_hand():
    # Range -1..2 at 2 bits: step 1, zero point 1. Range 1..3 is widened to 0..3, zero point 0.
    np.testing.assert_array_equal(
        run([-1, 0, 0.6, 2], 2.0, -1.0, 2.0, whole_zero=True), [-1, 0, 1, 2]
    )
    lo, hi = bitpruning.include_zero(f64(1.0), f64(3.0))
    assert (float(lo), float(hi)) == (0, 3)
    lo, hi = bitpruning.include_zero(f64(-3.0), f64(-1.0))
    assert (float(lo), float(hi)) == (-3, 0)


# Laws; the numbers are those of the method's list of properties.


@pytest.mark.parametrize("bits", range(1, 17))
def test_1_whole_bits_equal_the_whole_quantizer(bits):
    v = samples((500,))
    y = on_data(v, float(bits))
    whole = bitpruning.quantize_whole(f64(v), f64(float(bits)), f64(v.min()), f64(v.max()))
    np.testing.assert_array_equal(y, whole)
    assert len(np.unique(y)) <= 2**bits
    step = (v.max() - v.min()) / (2**bits - 1)
    assert np.all(np.abs(y - v) <= step / 2 * (1 + 1e-9))


@settings(max_examples=50, deadline=None)
@given(n=st.floats(0, 18), seed=st.integers(0, 100))
def test_2_ends_are_levels_and_output_stays_inside(n, seed):
    v = samples((9,), seed)
    y = on_data(v, n)
    eps = 1e-12 * (v.max() - v.min())  # float64: lo + step * top_code against hi
    assert abs(y[np.argmin(v)] - v.min()) <= eps
    assert abs(y[np.argmax(v)] - v.max()) <= eps
    assert y.min() >= v.min() - eps
    assert y.max() <= v.max() + eps


@pytest.mark.parametrize("k", range(2, 16))
def test_3_continuity(k):
    v = samples()
    eps = 1e-9
    at = on_data(v, float(k))
    # The slope is at most a step of the longer-lower grid, below the range.
    tolerance = 2 * eps * (v.max() - v.min())
    np.testing.assert_allclose(on_data(v, k - eps), at, atol=tolerance)
    np.testing.assert_allclose(on_data(v, k + eps), at, atol=tolerance)


@pytest.mark.parametrize("n", [1.3, 2.5, 7.75, 15.5])
def test_4_finite_difference_of_bits(n):
    v = samples()
    lo, hi = f64(v.min()), f64(v.max())
    b = f64(np.floor(n))
    slope = bitpruning.quantize_whole(f64(v), b + 1, lo, hi) - bitpruning.quantize_whole(
        f64(v), b, lo, hi
    )
    h = 2.0**-6
    difference = (on_data(v, n + h) - on_data(v, n - h)) / (2 * h)
    np.testing.assert_allclose(difference, slope, atol=1e-12)  # linear: float64 rounding / 2h
    _, dn = gradients(v, np.full(v.shape, n), lo, hi, np.ones_like(v))
    np.testing.assert_allclose(dn, slope, atol=1e-15)


def test_4_right_hand_derivative_at_whole_bits_and_left_hand_at_the_top():
    v = samples()
    lo, hi = v.min(), v.max()
    for n, b in ((3.0, 3.0), (16.0, 15.0)):
        _, dn = gradients(v, np.full(v.shape, n), lo, hi, np.ones_like(v))
        want = run(v, b + 1, lo, hi) - run(v, b, lo, hi)
        np.testing.assert_allclose(dn, want, atol=1e-15)  # the same subtraction


@pytest.mark.parametrize("n", [0.2, 1.0, 2.6, 8.0, 16.0, 20.0])
@pytest.mark.parametrize("whole_zero", [False, True])
def test_5_values_pass_straight_through_inside_only(n, whole_zero):
    v = np.array([-2.0, -1.0, -0.3, 0.0, 0.7, 1.5, 1.6])
    upstream = samples(v.shape, 1)
    dv, _ = gradients(v, n, -1.0, 1.5, upstream, whole_zero=whole_zero)
    np.testing.assert_array_equal(dv, np.where((v >= -1) & (v <= 1.5), upstream, 0))


def test_6_bits_of_a_channel_see_only_their_channel():
    v, g = samples((6, 3)), samples((6, 3), 1)
    n = np.array([1.5, 4.25, 9.0])
    lo, hi = v.min(0), v.max(0)
    _, dn = gradients(v, n, lo, hi, g)
    for c in range(3):
        _, alone = gradients(v[:, c], n[c], lo[c], hi[c], g[:, c])
        assert dn[c] == pytest.approx(alone, abs=1e-13)
        np.testing.assert_array_equal(run(v, n, lo, hi)[:, c], run(v[:, c], n[c], lo[c], hi[c]))


@pytest.mark.parametrize("seed", range(3))
def test_7_error_falls_over_whole_bits(seed):
    v = samples((2000,), seed)
    errors = [np.mean((on_data(v, float(b)) - v) ** 2) for b in range(1, 9)]
    assert np.all(np.diff(errors) < 0)


def test_9_bits_outside_the_limits_act_as_the_limit_and_come_back():
    v = samples()
    for outside, limit in ((0.0, 1.0), (-5.0, 1.0), (30.0, 16.0)):
        np.testing.assert_array_equal(on_data(v, outside), on_data(v, limit))
        g = samples(v.shape, 1)
        _, dn = gradients(v, outside, v.min(), v.max(), g)
        _, at = gradients(v, limit, v.min(), v.max(), g)
        assert dn == at
    # Descending the squared error from n = 0.5 asks for more bits.
    y = on_data(v, 0.5)
    _, dn = gradients(v, 0.5, v.min(), v.max(), y - v)
    assert dn < 0


def test_10_regularizer_counts_clipped_bits_with_full_gradient():
    n = f64([0.5, 3.25, 20.0])
    importance = f64([0.5, 0.25, 0.25])
    with tf.GradientTape() as tape:
        tape.watch(n)
        loss = bitpruning.regularizer(n, importance, 2.0, 16)
    assert float(loss) == 2 * (0.5 * 1 + 0.25 * 3.25 + 0.25 * 16)
    np.testing.assert_array_equal(tape.gradient(loss, n), 2 * importance)


@pytest.mark.parametrize(
    ("n", "ceil", "nearest"),
    [(4.0, 4, 4), (4.0000005, 4, 4), (4.02, 5, 4), (0.3, 1, 1), (15.6, 16, 16), (99.0, 16, 16)],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_11_selection(n, ceil, nearest, dtype):
    n = tf.constant(n, dtype)
    assert float(bitpruning.select_bits(n, 16)) == ceil
    assert float(bitpruning.select_bits(n, 16, "round")) == nearest


@settings(max_examples=50, deadline=None)
@given(
    lo=st.floats(-5, 5),
    width=st.floats(0, 5),
    bits=st.integers(1, 16),
    seed=st.integers(0, 100),
)
def test_12_zero_is_a_level_of_the_whole_zero_form(lo, width, bits, seed):
    lo, hi = bitpruning.include_zero(f64(lo), f64(lo + width))
    assert run(0.0, float(bits), lo, hi, whole_zero=True) == 0
    v = np.random.default_rng(seed).uniform(float(lo), float(hi), 20)
    b = f64(float(bits))
    code = bitpruning.codes(f64(v), b, lo, hi, whole_zero=True).numpy()
    assert code.min() >= 0
    assert code.max() <= 2**bits - 1
    step = float(bitpruning.step_size(b, lo, hi))
    zero = float(bitpruning.zero_point(b, lo, hi))
    y = run(v, float(bits), lo, hi, whole_zero=True)
    np.testing.assert_array_equal(y, step * (code - zero))
    # Half a step of rounding, and half a step that moving the ends may clip.
    assert np.all(np.abs(y - v) <= step * (1 + 1e-9))


@pytest.mark.parametrize("n", [1.0, 2.7, 8.0])
def test_13_scaling_and_shifting(n):
    v = samples()
    np.testing.assert_array_equal(on_data(4 * v, n), 4 * on_data(v, n))
    # 1e-12: the shifted values are rounded in float64.
    np.testing.assert_allclose(on_data(v + 3, n), on_data(v, n) + 3, atol=1e-12)


def test_nan_and_infinity_are_not_turned_into_levels():
    y = run([np.nan, 0.5], 3.5, 0.0, 1.0)
    assert np.isnan(y[0])
    assert np.isfinite(y[1])
    assert np.isnan(on_data(samples(), np.nan)).all()


def test_range_is_a_constant_and_keeps_the_axes_of_groups():
    v = tf.constant(samples((2, 3, 4)))
    with tf.GradientTape() as tape:
        tape.watch(v)
        lo, hi = bitpruning.data_range(v, (0, 1))
    assert lo.shape == hi.shape == (1, 1, 4)
    assert tape.gradient([lo, hi], v) is None
    assert bitpruning.data_range(v)[0].shape == ()


def test_dtype_follows_the_input():
    for dtype in ("float32", "float64"):
        args = [ops.cast(a, dtype) for a in (samples(), 3.5, -1.0, 1.0)]
        assert bitpruning.quantize(*args).dtype == dtype
