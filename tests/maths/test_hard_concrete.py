import math

import golden_files
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasbits.maths import hard_concrete as hc

GOLDEN = golden_files.load("bayesian_bits")
EXACT = 1e-10  # float64 throughout; a handful of transcendental functions, each good to 1e-15


def f64(x):
    return ops.convert_to_tensor(np.asarray(x), "float64")


def value(x):
    return ops.convert_to_numpy(x)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_probability_table():
    np.testing.assert_allclose(
        value(hc.probability_on(f64(GOLDEN["s_phi"]))), GOLDEN["s_prob_on"], rtol=EXACT
    )


def test_inference_gate_table():
    np.testing.assert_array_equal(value(hc.inference_gate(f64(GOLDEN["s_phi"]))), GOLDEN["s_gate"])


def test_noise_free_table():
    z = value(hc.noise_free_gate(f64(GOLDEN["s_phi"])))
    np.testing.assert_allclose(z, GOLDEN["s_gate_noise_free"], atol=EXACT)


def test_sample_table():
    z = value(hc.sample_gate(f64(GOLDEN["s_phi"]), f64(GOLDEN["s_u"])))
    np.testing.assert_allclose(z, GOLDEN["s_sample"], atol=EXACT)


def test_noise_free_gate_is_the_sample_at_the_median():
    phi = f64(np.linspace(-4, 4, 33))
    median = hc.sample_gate(phi, f64(np.full(33, 0.5)))
    np.testing.assert_allclose(value(hc.noise_free_gate(phi)), value(median), atol=1e-15)


def test_hand_computed_sample():
    # u = 1/2 and phi = 0 give s = 1/2, the middle of (-0.1, 1.1).
    assert float(hc.sample_gate(f64(0.0), f64(0.5))) == pytest.approx(0.5, abs=1e-15)
    s = sigmoid((math.log(0.3 / 0.7) + 0.4) * 1.5)
    assert float(hc.sample_gate(f64(0.4), f64(0.3))) == pytest.approx(1.2 * s - 0.1, abs=1e-14)


def test_probability_at_six():
    assert float(hc.probability_on(f64(6.0))) == pytest.approx(0.99950, abs=5e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inference_gate_flips_at_the_threshold(dtype):
    phi = ops.convert_to_tensor([-0.9354, -0.9352, -50.0, 50.0], dtype)
    gate = hc.inference_gate(phi)
    assert value(gate).tolist() == [0, 1, 0, 1]
    assert gate.dtype == phi.dtype


@pytest.mark.parametrize("phi", [-2.0, -0.5, 0.0, 1.0, 3.0])
def test_share_of_exact_zeros_and_ones(phi):
    n = 40_000
    u = np.random.default_rng(3).uniform(size=n)
    z = value(hc.sample_gate(f64(np.full(n, phi)), f64(u)))
    noise = 4 * 0.5 / math.sqrt(n)  # four standard deviations of a frequency, at most
    assert np.mean(z == 0) == pytest.approx(sigmoid(-1.598597 - phi), abs=noise)
    assert np.mean(z == 1) == pytest.approx(sigmoid(phi - 1.598597), abs=noise)
    on = float(hc.probability_on(f64(phi)))
    assert np.mean(z > 0) == pytest.approx(on, abs=noise)


def test_sample_is_monotone_in_both_arguments():
    grid = np.linspace(0.01, 0.99, 50)
    for phi in (-1.0, 0.0, 2.0):
        z = value(hc.sample_gate(f64(np.full(50, phi)), f64(grid)))
        assert (np.diff(z) >= 0).all()
    z = value(hc.sample_gate(f64(np.linspace(-5, 5, 50)), f64(np.full(50, 0.4))))
    assert (np.diff(z) >= 0).all()
    assert z.min() == 0
    assert z.max() == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_noise_of_exactly_0_and_1_is_finite(dtype):
    phi = tf.zeros(2, dtype)
    with tf.GradientTape() as tape:
        tape.watch(phi)
        z = hc.sample_gate(phi, tf.constant([0.0, 1.0], dtype))
    assert value(z).tolist() == [0, 1]
    assert value(tape.gradient(z, phi)).tolist() == [0, 0]
    # The noise is kept a millionth away from its ends, so a large enough phi outweighs it.
    assert 0 < float(hc.sample_gate(tf.constant(13.8, dtype), tf.constant(0.0, dtype))) < 1


def test_sample_gradient_is_the_stated_one():
    phi = f64(np.linspace(-6, 6, 41))
    u = f64(np.random.default_rng(5).uniform(size=41))
    with tf.GradientTape() as tape:
        tape.watch(phi)
        z = hc.sample_gate(phi, u)
    gradient = value(tape.gradient(z, phi))
    s = 1 / (1 + np.exp(-(np.log(value(u)) - np.log(1 - value(u)) + value(phi)) * 1.5))
    inside = (value(z) > 0) & (value(z) < 1)
    assert inside.any()
    assert not inside.all()
    expected = np.where(inside, 1.2 * s * (1 - s) * 1.5, 0)
    np.testing.assert_allclose(gradient, expected, atol=EXACT)


def test_probability_gradient_is_finite_far_out():
    phi = tf.constant([-1e4, 0.0, 1e4])
    with tf.GradientTape() as tape:
        tape.watch(phi)
        p = hc.probability_on(phi)
    assert np.isfinite(value(tape.gradient(p, phi))).all()
    assert value(p)[[0, 2]].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("phi", "expected"),
    [
        ([1.0, 1.0, 1.0, 1.0], [1, 1, 1, 1]),
        ([1.0, -3.0, 1.0, 1.0], [1, 0, 0, 0]),
        ([-2.0, 6.0, 6.0, 6.0], [0, 0, 0, 0]),  # the border itself is cut
        ([-1.999, 0.0, 0.0, -2.5], [1, 1, 1, 0]),
    ],
)
def test_cutting_a_gate_cuts_all_after_it(phi, expected):
    assert value(hc.uncut(f64(phi), -2.0)).tolist() == expected
    assert value(hc.uncut(f64(phi), None)).tolist() == [1, 1, 1, 1]
