"""APoT by hand and by law."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from maths.apot_for_tests import BITS, codes, f64, gradients, run, table_of

from kerasbits.maths import apot, fused

# By hand.


def test_terms_by_hand():
    assert apot.shift_terms(1) == ((0,),)
    assert apot.shift_terms(4) == ((0, 2, 4), (1, 3, 5))
    assert apot.shift_terms(5) == ((0, 2, 5), (1, 3, 6), (4,))


def test_other_base_bits():
    assert apot.magnitude_levels(3, k=1) == tuple(range(8))  # uniform
    assert apot.magnitude_levels(2, k=2) == (0, 1, 2, 4)  # plain powers of two
    assert apot.magnitude_levels(3, k=3) == (0, 1, 2, 4, 8, 16, 32, 64)
    assert apot.magnitude_levels(4, k=4)[-3:] == (4096, 8192, 16384)
    for bits, k in ((3, 4), (5, 3), (4, 0), (0, 2)):
        with pytest.raises(ValueError, match="base bits k"):
            apot.magnitude_levels(bits, k)


def test_three_bit_weights_by_hand():
    # Levels 0, 1/4, 1/2, 1 of alpha = 4: 0, 1, 2, 4; borders 0.5, 1.5, 3 belong to the smaller.
    x = [-9.0, -3.0, -1.6, -0.5, 0.0, 0.5, 0.6, 1.5, 3.0, 3.1, 4.0]
    want = [-4, -2, -2, 0, 0, 0, 1, 1, 2, 4, 4]
    np.testing.assert_array_equal(run(x, 4.0, 3, True), want)


def test_two_bit_inputs_by_hand():
    x = [-3.0, 0.0, 0.6, 1.6, 3.5, 8.0]
    np.testing.assert_array_equal(run(x, 4.0, 2, False), [0, 0, 1, 2, 4, 4])


def test_one_bit_inputs_are_zero_or_alpha():
    np.testing.assert_array_equal(run([-1.0, 1.0, 1.1, 9.0], 2.0, 1, False), [0, 0, 2, 2])


def test_normalization_by_hand():
    wn, den = apot.normalize(f64([[1.0, 3.0]]), "sample")
    np.testing.assert_allclose(wn, [[-(0.5**0.5), 0.5**0.5]], rtol=1e-15)
    assert float(den) == pytest.approx(2**0.5, rel=1e-15)
    wn, den = apot.normalize(f64([[1.0, 3.0]]))
    assert float(den) == pytest.approx(1 + 1e-5, rel=1e-15)
    np.testing.assert_allclose(wn, [[-1 / (1 + 1e-5), 1 / (1 + 1e-5)]], rtol=1e-15)


# Laws; the numbers are those of the method's list of properties.


@pytest.mark.parametrize("bits", range(1, 9))
def test_1_levels(bits):
    levels = apot.magnitude_levels(bits)
    assert len(set(levels)) == len(levels) == 2**bits
    assert levels[0] == 0
    assert list(levels) == sorted(levels)
    terms = apot.shift_terms(bits)
    exponents = [e for term in terms for e in term]
    assert len(set(exponents)) == len(exponents)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(2, 8),
    signed=st.booleans(),
    alpha=st.floats(0.01, 10),
    seed=st.integers(0, 1000),
)
def test_2_and_3_outputs_are_the_nearest_levels(bits, signed, alpha, seed):
    x = np.sort(np.random.default_rng(seed).normal(size=60)) * alpha
    y = run(x, alpha, bits, signed)
    levels = np.array(apot.magnitude_levels(bits - 1 if signed else bits)) * alpha
    levels = levels / levels.max() * alpha
    levels = np.concatenate([-levels[::-1], levels]) if signed else levels
    distance = np.abs(x[:, None] - levels)
    eps = 1e-12 * alpha  # float64
    np.testing.assert_allclose(np.abs(x - y), distance.min(1), atol=eps)
    assert np.all(np.abs(y[:, None] - levels).min(1) <= eps)
    assert np.all(np.abs(y) <= alpha + eps)
    assert signed or y.min() >= 0
    assert np.all(np.diff(y) >= 0)  # monotone
    np.testing.assert_allclose(run(y, alpha, bits, signed), y, atol=eps)  # idempotent


@pytest.mark.parametrize("bits", BITS)
def test_4_scaling_and_odd_symmetry(bits):
    x = np.random.default_rng(0).normal(size=50)
    for signed in (True, False):
        y = run(x, 1.5, bits, signed)
        np.testing.assert_array_equal(run(8 * x, 12.0, bits, signed), 8 * y)
    np.testing.assert_array_equal(run(-x, 1.5, bits, True), -run(x, 1.5, bits, True))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("signed", [True, False])
def test_5_gradient_of_alpha(bits, signed):
    alpha = 1.25
    for x in (-3.0, -1.25, -0.4, 0.0, 0.33, 0.9, 1.25, 2.0):
        p = run([x], alpha, bits, signed)[0] / alpha
        u = x / alpha
        inside = (-1 if signed else 0) <= u <= 1
        _, da = gradients([x], alpha, bits, signed)
        want = p - u if inside else p
        assert da == pytest.approx(want, abs=1e-14)
    # At fixed codes the output is linear in alpha with slope p; straight through, minus u inside.
    h = 1e-6
    x = np.random.default_rng(0).normal(size=40)
    same = codes(x, alpha + h, bits, signed) == codes(x, alpha - h, bits, signed)
    x = x[same]
    slope = (run(x, alpha + h, bits, signed) - run(x, alpha - h, bits, signed)) / (2 * h)
    u = x / alpha
    inside = (u >= (-1 if signed else 0)) & (u <= 1)
    _, da = gradients(x, alpha, bits, signed)
    assert da == pytest.approx(np.sum(slope - np.where(inside, u, 0)), abs=1e-7)  # eps / h


@pytest.mark.parametrize("bits", BITS)
def test_5_gradient_of_alpha_vanishes_on_levels(bits):
    levels = np.array(apot.magnitude_levels(bits - 1), np.float64)
    x = levels / levels[-1] * 1.5
    _, da = gradients(np.concatenate([x, -x]), 1.5, bits, True)
    assert da == pytest.approx(0, abs=1e-13)
    _, below = gradients([-1.0, -9.0], 1.5, bits, False)
    assert below == 0


@pytest.mark.parametrize("signed", [True, False])
def test_5_gradient_of_values(signed):
    x = np.array([-3.0, -1.0, -0.5, 0.0, 0.4, 1.0, 1.01])
    inside = (x >= (-1 if signed else 0)) & (x <= 1)
    dx, _ = gradients(x, 1.0, 4, signed)
    np.testing.assert_allclose(dx, inside, atol=1e-15)
    passed, da = gradients(x, 1.0, 4, signed, clipped=False)
    np.testing.assert_allclose(passed, np.ones_like(x), atol=1e-15)
    assert da == gradients(x, 1.0, 4, signed)[1]
    np.testing.assert_array_equal(run(x, 1.0, 4, signed, clipped=False), run(x, 1.0, 4, signed))


@pytest.mark.parametrize("std", ["population", "sample"])
def test_6_normalization(std):
    w = np.random.default_rng(0).normal(0.3, 0.2, size=(3, 3, 2, 4))
    g = np.random.default_rng(1).normal(size=w.shape)
    wn, den = (t.numpy() for t in apot.normalize(f64(w), std))
    sigma = w.std(ddof=0 if std == "population" else 1)
    assert den == pytest.approx(sigma + (1e-5 if std == "population" else 0), rel=1e-12)
    assert wn.mean() == pytest.approx(0, abs=1e-14)
    assert wn.std() == pytest.approx(w.std() / den, rel=1e-12)
    # Invariant, up to the epsilon relative to the deviation.
    slack = 5e-5 * np.abs(wn).max() / 0.2 if std == "population" else 1e-12
    np.testing.assert_allclose(apot.normalize(f64(7 * w + 5), std)[0], wn, atol=slack)
    x = f64(w)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y, _ = apot.normalize(x, std)
    dw = tape.gradient(y, x, output_gradients=f64(g)).numpy()
    assert dw.sum() == pytest.approx(0, abs=1e-11)  # orthogonal to ones
    if std == "sample":
        assert (dw * w).sum() == pytest.approx(0, abs=1e-11)  # no epsilon: orthogonal to w


@pytest.mark.parametrize("bits", range(1, 9))
def test_7_levels_decompose_into_few_shifts(bits):
    terms = apot.shift_terms(bits)
    assert len(terms) <= bits // 2 + bits % 2
    largest = max(e for term in terms for e in term)
    sums = {
        sum(2 ** (largest - e) for e in choice if e is not None)
        for choice in itertools.product(*[(None, *term) for term in terms])
    }
    assert sums == set(apot.magnitude_levels(bits))


def test_9_few_bit_weights():
    alpha = 2.0
    np.testing.assert_array_equal(
        run([-1.01, -1.0, 0.99, 1.0, 1.01], alpha, 2, True), [-2, 0, 0, 0, 2]
    )
    assert all(n & (n - 1) == 0 for n in apot.magnitude_levels(2))


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (3, 3, 4, 64)])
@pytest.mark.parametrize("value", [0.0, 0.1, -7.3])
@pytest.mark.parametrize("std", ["population", "sample"])
@pytest.mark.parametrize("kind", ["full", "detached"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_10_constant_kernels(shape, value, std, kind, dtype):
    w = tf.fill(shape, tf.constant(value, dtype))
    with tf.GradientTape() as tape:
        tape.watch(w)
        wn, den = apot.normalize(w, std, kind)
        total = tf.reduce_sum(wn * tf.cast(tf.range(tf.size(w)), dtype)[0] + wn)
    np.testing.assert_array_equal(wn, np.zeros(shape))
    assert float(den) > 0
    assert np.isfinite(tape.gradient(total, w)).all()


def test_10_all_zero_input():
    y = run(np.zeros(5), 1.0, 4, False)
    assert not y.any()
    dx, da = gradients(np.zeros(5), 1.0, 4, False)
    assert da == 0
    np.testing.assert_allclose(dx, 1, atol=1e-15)


@pytest.mark.parametrize("clipped", [True, False])
def test_nan_stays_nan(clipped):
    y = run([np.nan, 0.3], 1.0, 4, True, clipped=clipped)
    assert np.isnan(y[0])
    assert np.isfinite(y[1])


def test_infinity_is_clipped():
    np.testing.assert_array_equal(run([np.inf, -np.inf], 1.0, 4, True), [1, -1])


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("signed", [0.0, 1.0])
def test_the_sign_may_be_state(bits, signed):
    """One table of static size serves both grids."""
    both = apot.level_table(
        f64(signed), apot.magnitude_levels(bits - 1), apot.magnitude_levels(bits), "float64"
    )
    x = f64(np.random.default_rng(0).normal(size=300))
    y = apot.quantize(x, f64(1.5), f64(signed), both).numpy()
    np.testing.assert_array_equal(y, run(x, 1.5, bits, bool(signed)))


def test_alpha_of_each_channel():
    x = np.random.default_rng(0).normal(size=(6, 3))
    alpha = np.array([0.5, 1.0, 2.0])
    y = run(x, alpha, 4, True)
    dx, da = gradients(x, alpha, 4, True)
    for c in range(3):
        np.testing.assert_array_equal(y[:, c], run(x[:, c], alpha[c], 4, True))
        dx_c, da_c = gradients(x[:, c], alpha[c], 4, True)
        np.testing.assert_array_equal(dx[:, c], dx_c)
        assert da[c] == pytest.approx(da_c, abs=1e-13)


def test_no_negative_zero():
    assert not np.signbit(run([-0.001, -0.0], 1.0, 4, True)).any()


def around_borders(alpha, bits, signed, size):
    """Floats next to all borders between levels, and what is no border, `size` of them."""
    levels = apot.magnitude_levels(bits - 1 if signed else bits)
    near = np.float32(apot.level_midpoints(levels)) * np.float32(alpha)
    steps = np.arange(-6, 7, dtype=np.int32)[:, None]
    near = (near.view(np.int32) + steps).view(np.float32).ravel()
    ends = np.float32(alpha) * np.float32([0.0, 1.0, 1.0 + 2**-23, 1.0 - 2**-24, 3.0])
    x = np.concatenate([near, ends, [np.inf, 1e-45]]).astype(np.float32)
    return np.resize(np.concatenate([x, -x, [np.nan]]).astype(np.float32), size)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("alpha", [1.0, 3.0, 0.7310585, 1.9999999, 1.7e-5])
@pytest.mark.parametrize("bits", [2, 4, 5])
def test_large_tensors_are_rounded_as_small_ones_are(bits, alpha, signed):
    # Large ones are compared with borders, small ones divided and looked up.
    x = around_borders(alpha, bits, signed, (fused.SMALL // 256, 256))
    small = [run(part, alpha, bits, signed, "float32") for part in np.split(x, 4)]
    np.testing.assert_array_equal(run(x, alpha, bits, signed, "float32"), np.concatenate(small))
    compiled = tf.function(apot.quantize, autograph=False)
    found = compiled(
        tf.constant(x), tf.constant(alpha), float(signed), table_of(bits, signed, "float32")
    )
    np.testing.assert_array_equal(found.numpy(), np.concatenate(small))
