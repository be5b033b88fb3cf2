import golden_files
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerasbits.maths import uniform


def f64(x):
    return tf.constant(np.asarray(x), tf.float64)


def run(x, beta, bits, signed):
    return uniform.quantize(f64(x), f64(beta), bits, f64(signed)).numpy()


def gradients(x, beta, bits, signed, upstream=None):
    x, beta = f64(x), f64(beta)
    with tf.GradientTape() as tape:
        tape.watch([x, beta])
        y = uniform.quantize(x, beta, bits, f64(signed))
        total = tf.reduce_sum(y if upstream is None else y * f64(upstream))
    dx, dbeta = tape.gradient(total, [x, beta])
    return dx.numpy(), dbeta.numpy()


def test_by_hand_signed_three_bits():
    # Step 1: codes -3..3; ties (0.5, 1.5, 2.5) go to the even code.
    x = [-9.0, -2.6, -0.5, 0.0, 0.5, 1.5, 2.5, 3.0, 4.0]
    np.testing.assert_array_equal(run(x, 3.0, 3, 1.0), [-3, -3, 0, 0, 0, 2, 2, 3, 3])


def test_by_hand_unsigned_two_bits():
    x = [-1.0, 0.2, 0.3, 0.8, 1.4, 1.5, 7.0]
    np.testing.assert_array_equal(run(x, 1.5, 2, 0.0), [0, 0, 0.5, 1, 1.5, 1.5, 1.5])


def test_one_bit_is_zero_or_threshold():
    np.testing.assert_array_equal(run([-1.0, 0.9, 1.1, 5.0], 2.0, 1, 0.0), [0, 0, 2, 2])


def test_gradients_are_the_stated_ones():
    x = np.array([-4.0, -3.0, -1.2, 0.0, 0.7, 2.4, 3.0, 3.1])
    y = run(x, 3.0, 3, 1.0)
    dx, _ = gradients(x, 3.0, 3, 1.0)
    np.testing.assert_array_equal(dx, np.abs(x) <= 3.0)  # closed range
    for i in range(len(x)):
        inside = (y[i] - x[i]) / 3.0
        want = 1.0 if x[i] > 3 else -1.0 if x[i] < -3 else inside
        _, dbeta = gradients(x[i : i + 1], 3.0, 3, 1.0)
        assert dbeta == pytest.approx(want, abs=1e-14)  # float64 arithmetic


def test_unsigned_gradients():
    dx, dbeta = gradients([-0.5, 0.0], 3.0, 2, 0.0)
    np.testing.assert_array_equal(dx, [0, 1])
    assert dbeta == 0
    _, above = gradients([5.0, 6.0], 3.0, 2, 0.0)
    assert above == pytest.approx(2.0, abs=1e-14)


@pytest.mark.parametrize("signed", [0.0, 1.0])
@pytest.mark.parametrize("bits", [2, 3, 8, 16])
def test_levels_are_nearest_and_counted(bits, signed):
    beta = 0.7
    x = np.random.default_rng(0).normal(size=3000)
    y = run(x, beta, bits, signed)
    top = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    levels = beta / top * np.arange(-top if signed else 0, top + 1)
    at = np.clip(np.searchsorted(levels, x), 1, len(levels) - 1)
    nearest = np.minimum(np.abs(levels[at] - x), np.abs(levels[at - 1] - x))
    np.testing.assert_allclose(np.abs(y - x), nearest, atol=1e-12)  # float64, values of size 1
    assert len(np.unique(y)) <= 2**bits - (1 if signed else 0)


@settings(max_examples=40, deadline=None)
@given(
    x=st.lists(st.floats(-8, 8), min_size=1, max_size=8),
    beta=st.floats(0.01, 5),
    bits=st.integers(2, 16),
    signed=st.sampled_from([0.0, 1.0]),
)
def test_laws(x, beta, bits, signed):
    x = np.sort(np.array(x))
    y = run(x, beta, bits, signed)
    assert np.all(np.diff(y) >= 0)  # monotone
    eps = 1e-12 * beta  # float64 rounding of step * code
    assert np.all(y <= beta + eps)
    assert np.all(y >= (-beta - eps if signed else 0))
    np.testing.assert_allclose(run(y, beta, bits, signed), y, atol=eps)  # idempotent
    if signed:
        np.testing.assert_array_equal(run(-x, beta, bits, signed), -y)
    np.testing.assert_array_equal(run(4 * x, 4 * beta, bits, signed), 4 * y)


@pytest.mark.parametrize("signed", [0.0, 1.0])
def test_threshold_of_each_channel(signed):
    x = np.random.default_rng(1).normal(size=(5, 3))
    beta = np.array([0.3, 1.0, 2.5])
    whole = run(x, beta, 4, signed)
    dx, dbeta = gradients(x, beta, 4, signed)
    for c in range(3):
        np.testing.assert_array_equal(whole[:, c], run(x[:, c], beta[c], 4, signed))
        dx_c, dbeta_c = gradients(x[:, c], beta[c], 4, signed)
        np.testing.assert_array_equal(dx[:, c], dx_c)
        assert dbeta[c] == pytest.approx(dbeta_c, abs=1e-12)  # order of the sum


def test_nan_stays_nan_and_infinity_is_clipped():
    y = run([np.nan, np.inf, -np.inf], 1.0, 4, 1.0)
    assert np.isnan(y[0])
    np.testing.assert_allclose(y[1:], [1, -1], atol=1e-15)


def test_no_negative_zero():
    y = run([-0.01, -0.0, 0.0], 1.0, 3, 1.0)
    assert not np.signbit(y).any()


def test_dtype_follows_the_input():
    for dtype in ("float16", "float32", "float64"):
        y = uniform.quantize(ops.ones((2,), dtype), ops.ones((), dtype), 4, 1.0)
        assert y.dtype == dtype


def test_golden_symmetric_absolute_maximum():
    """Eight bit first and last layers: `s * round(127 w / s) / 127`, `s = max|w|`."""
    arrays = golden_files.load("apot")
    found = golden_files.cases(arrays, "first", "w")
    assert found
    for case in found:
        w = arrays[f"{case}_w"].astype(np.float64)
        beta = np.abs(w).max()
        k = uniform.codes(f64(w), f64(beta), 8, f64(1.0)).numpy()
        np.testing.assert_array_equal(k, arrays[f"{case}_code"])
        # Two float64 products in another order.
        np.testing.assert_allclose(
            run(w, beta, 8, 1.0), arrays[f"{case}_q"], rtol=0, atol=1e-12 * beta
        )
        dx, _ = gradients(w, beta, 8, 1.0)
        np.testing.assert_array_equal(dx, np.ones_like(w))  # nothing is clipped
