"""Hand-computed cases and reference vectors of the activations of bit-level sparsity."""

import golden_files
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasbits.maths import bsq_activations as activations

GOLDEN = golden_files.load("bsq")
QUANTIZED = golden_files.cases(GOLDEN, "act__", "q")


def tensor(x, dtype="float64"):
    return ops.convert_to_tensor(np.asarray(x), dtype)


# Reference vectors.


def test_reference_file_has_every_group():
    assert len(QUANTIZED) > 0


@pytest.mark.parametrize("case", QUANTIZED)
def test_reference_dynamic_maximum(case):
    x, bits = tensor(GOLDEN[f"{case}_x"]), int(GOLDEN[f"{case}_n"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        q = activations.quantize_to_maximum(x, bits)
    np.testing.assert_allclose(q, GOLDEN[f"{case}_q"], rtol=1e-10, atol=1e-15)
    np.testing.assert_array_equal(tape.gradient(q, x), np.ones(x.shape))
    given = activations.quantize_to_maximum(x, bits, np.abs(GOLDEN[f"{case}_x"]).max())
    np.testing.assert_allclose(given, q, rtol=1e-12)


def test_reference_pact():
    x, alpha = tensor(GOLDEN["pact__x"]), tensor(GOLDEN["pact__alpha"])
    with tf.GradientTape() as tape:
        tape.watch((x, alpha))
        y = activations.pact_clip(x, alpha)
    dx, dalpha = tape.gradient(y, (x, alpha), tensor(GOLDEN["pact__g"]))
    np.testing.assert_allclose(y, GOLDEN["pact__y"], rtol=1e-7)  # stored as float32
    np.testing.assert_allclose(dx, GOLDEN["pact__dx"], rtol=1e-7)
    np.testing.assert_allclose(dalpha, GOLDEN["pact__dalpha"], rtol=1e-9)


# Cases by hand.


def test_dynamic_maximum_edges():
    zero = activations.quantize_to_maximum(tensor([0.0, 0.0]), 4)
    np.testing.assert_array_equal(zero, [0, 0])
    x = tensor([-1.5, 0.4, 3.0])
    np.testing.assert_array_equal(activations.quantize_to_maximum(x, 0), x)
    np.testing.assert_array_equal(activations.quantize_to_maximum(x, 1, 1.0), [-1, 0, 1])


def test_pact_borders():
    x, alpha = tensor([-1.0, 0.0, 0.5, 2.0, 3.0]), tensor(2.0)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch((x, alpha))
        y = activations.pact_clip(x, alpha)
        parts = [y[i] for i in range(5)]
    np.testing.assert_array_equal(y, [0, 0, 0.5, 2, 2])
    np.testing.assert_array_equal(tape.gradient(y, x), [0, 1, 1, 1, 0])
    slopes = [float(tape.gradient(part, alpha)) for part in parts]
    np.testing.assert_array_equal(slopes, [0, 0, 0, 1, 1])


def test_average_maximum():
    average, steps = tensor(0.0), tensor(0.0)
    for x, expected in (([1.0, -4.0], 4.0), ([2.0, 0.0], 3.0)):
        average, steps = activations.average_maximum(average, steps, tensor(x), momentum=0.5)
        assert float(average) == expected
    assert float(steps) == 2
