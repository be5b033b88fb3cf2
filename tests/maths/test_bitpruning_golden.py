"""Reference vectors of BitPruning.

All are float64; 1e-12 of the range covers another order of operations.
"""

import golden_files
import numpy as np
import pytest
import tensorflow as tf
from maths.bitpruning_for_tests import f64, gradients, run

from kerasbits.maths import bitpruning

GOLDEN = golden_files.load("bitpruning")
FROM_DATA = golden_files.cases(GOLDEN, "b", "final_y")
FIXED_RANGE = golden_files.cases(GOLDEN, "r", "gx")
DEGENERATE = golden_files.cases(GOLDEN, "deg_", "dn")
MAX = int(GOLDEN["n_max"])


def group_axes(v, n):
    """Axes of `v` that the smaller `n` broadcasts over."""
    aligned = (1,) * (v.ndim - np.ndim(n)) + np.shape(n)
    return tuple(i for i, size in enumerate(aligned) if size == 1)


def test_golden_file_is_as_described():
    assert len(FROM_DATA) == GOLDEN["n_cases"]
    assert GOLDEN["n_min"] == bitpruning.MIN_BITS
    assert FIXED_RANGE
    assert DEGENERATE
    prefixes = (*(f"{c}_" for c in FROM_DATA + FIXED_RANGE), "tie_", "deg_", "reg_", "n_")
    assert [k for k in GOLDEN if not k.startswith(prefixes)] == []


@pytest.mark.parametrize("case", FROM_DATA)
def test_golden_forward(case):
    g = {
        k: GOLDEN[f"{case}_{k}"] for k in ("x", "n", "lo", "hi", "b", "alpha", "q_lo", "q_hi", "y")
    }
    axes = group_axes(g["x"], g["n"])
    lo, hi = bitpruning.data_range(f64(g["x"]), axes)
    np.testing.assert_array_equal(np.reshape(lo, g["lo"].shape), g["lo"])
    np.testing.assert_array_equal(np.reshape(hi, g["hi"].shape), g["hi"])
    b, alpha = bitpruning.split_bits(bitpruning.effective_bits(f64(g["n"]), MAX), MAX)
    np.testing.assert_array_equal(b, g["b"])
    np.testing.assert_allclose(alpha, g["alpha"], rtol=0, atol=1e-12)
    tolerance = 1e-12 * float(np.max(g["hi"] - g["lo"]))
    x, lo, hi = f64(g["x"]), f64(g["lo"]), f64(g["hi"])
    for key, bits in (("q_lo", b), ("q_hi", b + 1)):
        q = bitpruning.quantize_whole(x, bits, lo, hi)
        np.testing.assert_allclose(q, g[key], rtol=0, atol=tolerance)
    y = run(g["x"], g["n"], g["lo"], g["hi"], MAX)
    np.testing.assert_allclose(y, g["y"], rtol=0, atol=tolerance)


def test_golden_forward_float32():
    """In float32 an element near a tie may jump one step: 1 of 1000 below 8 bits at most."""
    jumps = elements = 0
    for case in FROM_DATA:
        x, n, lo, hi, y = (GOLDEN[f"{case}_{k}"] for k in ("x", "n", "lo", "hi", "y"))
        got = bitpruning.quantize(*(tf.constant(a, tf.float32) for a in (x, n, lo, hi)), MAX)
        b = np.clip(np.floor(n), 1, MAX - 1)
        error, near = np.abs(got - y), 1e-5 * (hi - lo)
        assert np.all(error <= (hi - lo) / (2.0**b - 1) + near)
        low = np.broadcast_to(b < 8, error.shape)
        jumps += np.sum((error > near) & low)
        elements += low.sum()
    assert jumps <= 1e-3 * elements


@pytest.mark.parametrize("case", FROM_DATA + FIXED_RANGE)
def test_golden_gradients(case):
    x, n, lo, hi, g, gx, gn = (
        GOLDEN[f"{case}_{k}"] for k in ("x", "n", "lo", "hi", "g", "gx", "gn")
    )
    dx, dn = gradients(x, n, lo, hi, g, MAX)
    np.testing.assert_array_equal(dx, gx)
    # A sum over the group of terms of the size of the range.
    np.testing.assert_allclose(dn, gn, rtol=0, atol=1e-12 * x.size * float(np.max(hi - lo)))


@pytest.mark.parametrize("case", FIXED_RANGE)
def test_golden_fixed_range(case):
    x, n, lo, hi, y = (GOLDEN[f"{case}_{k}"] for k in ("x", "n", "lo", "hi", "y"))
    assert np.any(x < lo) or np.any(x > hi)
    tolerance = 1e-12 * float(np.max(hi - lo))
    np.testing.assert_allclose(run(x, n, lo, hi, MAX), y, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", FROM_DATA)
def test_golden_selection_and_export(case):
    g = {k: GOLDEN[f"{case}_{k}"] for k in ("x", "n", "lo", "hi")}
    x, n, lo, hi = (f64(v) for v in g.values())
    bits = bitpruning.select_bits(n, MAX)
    np.testing.assert_array_equal(bits, GOLDEN[f"{case}_final_bits"])
    tolerance = 1e-12 * float(np.max(g["hi"] - g["lo"]))

    step = bitpruning.step_size(bits, lo, hi)
    np.testing.assert_allclose(step, GOLDEN[f"{case}_final_step"], rtol=1e-14)  # one division
    code = bitpruning.codes(x, bits, lo, hi)
    np.testing.assert_array_equal(code, GOLDEN[f"{case}_final_code"])
    y = run(x, bits, lo, hi, MAX)
    np.testing.assert_allclose(y, GOLDEN[f"{case}_final_y"], rtol=0, atol=tolerance)

    lo, hi = bitpruning.include_zero(lo, hi)
    tolerance = 1e-12 * float(np.max(hi - lo))
    scale = bitpruning.step_size(bits, lo, hi)
    np.testing.assert_allclose(scale, GOLDEN[f"{case}_export_scale"], rtol=1e-14)
    zero = bitpruning.zero_point(bits, lo, hi)
    np.testing.assert_array_equal(zero, GOLDEN[f"{case}_export_zero_point"])
    code = bitpruning.codes(x, bits, lo, hi, whole_zero=True)
    np.testing.assert_array_equal(code, GOLDEN[f"{case}_export_code"])
    y = run(x, bits, lo, hi, MAX, whole_zero=True)
    np.testing.assert_allclose(y, GOLDEN[f"{case}_export_y"], rtol=0, atol=tolerance)


def test_golden_ties():
    y = run(GOLDEN["tie_x"], 4.0, GOLDEN["tie_lo"], GOLDEN["tie_hi"])
    np.testing.assert_array_equal(y, GOLDEN["tie_y4"])


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("n", [1.0, 3.4, 16.0])
def test_golden_constant_groups(case, n):
    x, dn = GOLDEN[f"{case}_x"], GOLDEN[f"{case}_dn"]
    lo, hi = x.min(), x.max()
    np.testing.assert_array_equal(run(x, n, lo, hi), GOLDEN[f"{case}_y"])
    np.testing.assert_array_equal(bitpruning.codes(f64(x), f64(3.0), f64(lo), f64(hi)), 0 * x)
    dx, got = gradients(x, np.full(x.shape, n), lo, hi, np.ones_like(x))
    np.testing.assert_array_equal(got, dn)
    np.testing.assert_array_equal(dx, np.ones_like(x))


@pytest.mark.parametrize(
    "cost", [k[len("reg_") : -len("_lambda")] for k in GOLDEN if k.endswith("_lambda")]
)
def test_golden_regularizer(cost):
    n, strength = f64(GOLDEN["reg_n"]), float(GOLDEN["reg_coefficient"])
    importance = f64(GOLDEN[f"reg_{cost}_lambda"])
    with tf.GradientTape() as tape:
        tape.watch(n)
        loss = bitpruning.regularizer(n, importance, strength, MAX)
    np.testing.assert_allclose(loss, GOLDEN[f"reg_{cost}"], rtol=1e-12)  # a sum in another order
    np.testing.assert_allclose(tape.gradient(loss, n), GOLDEN[f"reg_{cost}_gn"], rtol=1e-12)
    assert np.sum(importance) == pytest.approx(1.0, abs=1e-12)
