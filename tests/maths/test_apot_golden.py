"""Reference vectors of APoT."""

import golden_files
import numpy as np
import pytest
import tensorflow as tf
from maths.apot_for_tests import BITS, codes, f64, gradients, run, table_of

from kerasbits.maths import apot

GOLDEN = golden_files.load("apot")
LEVEL_BITS = sorted(int(k.split("_B")[1]) for k in GOLDEN if k.startswith("levels__int_B"))
WEIGHTS = golden_files.cases(GOLDEN, "w__", "dx_pass")
INPUTS = golden_files.cases(GOLDEN, "a__", "dx")
NORMALIZED = golden_files.cases(GOLDEN, "wn__", "pop")
DOTS = golden_files.cases(GOLDEN, "dot_", "acc")


def bits_of(case):
    return int(case.split("__b")[1].split("_")[0])


def sizes(case):
    """Sum of |upstream|: what rounding of a gradient sum is relative to."""
    return float(np.abs(GOLDEN[f"{case}_g"]).sum())


def test_golden_file_is_as_described():
    known = [f"{c}_" for c in (*WEIGHTS, *INPUTS, *NORMALIZED, *DOTS)]
    left = [k for k in GOLDEN if not k.startswith((*known, "levels__", "first__"))]
    assert left == []  # `first` belongs to the uniform quantizer
    assert LEVEL_BITS
    assert all([WEIGHTS, INPUTS, NORMALIZED, DOTS])


@pytest.mark.parametrize("bits", LEVEL_BITS)
def test_golden_levels(bits):
    levels = apot.magnitude_levels(bits)
    np.testing.assert_array_equal(levels, GOLDEN[f"levels__int_B{bits}"])
    exponents = [e for term in apot.shift_terms(bits) for e in term]
    assert max(exponents) == GOLDEN[f"levels__E_B{bits}"]
    ratio = np.array(levels) / levels[-1]
    np.testing.assert_allclose(ratio, GOLDEN[f"levels__float_B{bits}"], atol=1e-15)  # one division


@pytest.mark.parametrize("case", WEIGHTS + INPUTS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_golden_forward(case, dtype):
    """Codes are exact also in float32: inputs stay 1e-6 away from all borders."""
    x, alpha, q, code = (GOLDEN[f"{case}_{k}"] for k in ("x", "alpha", "q", "code"))
    bits, signed = bits_of(case), case in WEIGHTS
    np.testing.assert_array_equal(codes(x, alpha, bits, signed, dtype), code)
    # Rounding of alpha * level / Lmax, twice half an ulp of alpha.
    ulp = float(alpha) * (2.3e-16 if dtype == "float64" else 1.2e-7)
    np.testing.assert_allclose(run(x, alpha, bits, signed, dtype), q, rtol=0, atol=2 * ulp)


@pytest.mark.parametrize("case", WEIGHTS)
def test_golden_weight_gradients(case):
    x, g, alpha, dalpha = (GOLDEN[f"{case}_{k}"] for k in ("x", "g", "alpha", "dalpha"))
    for kind in ("clipped", "pass"):
        dx, da = gradients(x, alpha, bits_of(case), True, g, kind == "clipped")
        # dx is scale * Lmax / alpha * g: float64 rounding of a value stored in float32.
        np.testing.assert_allclose(dx, GOLDEN[f"{case}_dx_{kind}"], rtol=1e-7)
        assert da == pytest.approx(float(dalpha), abs=1e-12 * sizes(case))


@pytest.mark.parametrize("case", INPUTS)
def test_golden_input_gradients(case):
    x, g, alpha, dalpha = (GOLDEN[f"{case}_{k}"] for k in ("x", "g", "alpha", "dalpha"))
    dx, da = gradients(x, alpha, bits_of(case), False, g)
    np.testing.assert_allclose(dx, GOLDEN[f"{case}_dx"], rtol=1e-7)  # stored in float32
    assert da == pytest.approx(float(dalpha), abs=1e-12 * sizes(case))


@pytest.mark.parametrize("case", golden_files.cases(GOLDEN, "", "off_q"))
def test_golden_released_code(case):
    """The authors' code, in float32, with the two-sided clip of inputs."""
    x, g, alpha = (GOLDEN[f"{case}_{k}"] for k in ("x", "g", "alpha"))
    signed = case in WEIGHTS
    q = run(x, alpha, bits_of(case), signed, "float32")
    # Levels and products rounded to float32 in another order: 3e-7 of alpha.
    np.testing.assert_allclose(q, GOLDEN[f"{case}_off_q"], rtol=0, atol=3e-7 * float(alpha))
    _, da = gradients(x, alpha, bits_of(case), signed, g)
    # A float32 sum over the tensor.
    assert da == pytest.approx(float(GOLDEN[f"{case}_off_dalpha"]), abs=2e-7 * sizes(case))


@pytest.mark.parametrize("case", NORMALIZED)
@pytest.mark.parametrize(("key", "std"), [("pop", "population"), ("sample", "sample")])
def test_golden_normalization(case, key, std):
    w, g = f64(GOLDEN[f"{case}_w"]), f64(GOLDEN[f"{case}_g"])
    want = GOLDEN[f"{case}_{key}"]
    for kind in ("detached", "full"):
        with tf.GradientTape() as tape:
            tape.watch(w)
            wn, _ = apot.normalize(w, std, kind)
        # Values of size 1..5 with a mean and a deviation summed in another order.
        np.testing.assert_allclose(wn, want, rtol=0, atol=1e-12)
        dw = tape.gradient(wn, w, output_gradients=g)
        stored = GOLDEN[f"{case}_{key}_dw_{kind}"]
        np.testing.assert_allclose(dw, stored, rtol=0, atol=1e-7 * np.abs(stored).max())  # float32


@pytest.mark.parametrize("case", DOTS)
def test_golden_integer_accumulation(case):
    w, a, alpha_w, alpha_a, acc, y = (
        GOLDEN[f"{case}_{k}"] for k in ("wcode", "acode", "alpha_w", "alpha_a", "acc", "y")
    )
    # The bits are those whose grids hold the codes.
    bits_w = next(b for b in BITS if np.abs(w).max() < 2 ** (b - 1))
    bits_a = next(b for b in BITS if a.max() < 2**b)
    levels_w = np.array(apot.magnitude_levels(bits_w - 1), np.int64)
    levels_a = np.array(apot.magnitude_levels(bits_a), np.int64)
    got = levels_a[a] @ (np.sign(w) * levels_w[np.abs(w)]).T
    np.testing.assert_array_equal(got, acc)
    scales = [
        float(apot.level_scale(f64(alpha), table_of(bits, signed)))
        for alpha, bits, signed in ((alpha_w, bits_w, True), (alpha_a, bits_a, False))
    ]
    np.testing.assert_allclose(scales[0] * scales[1] * got, y, rtol=1e-12)  # product order
    # Law 8: the same by quantized floats. Values on levels are taken to themselves.
    wq = run(scales[0] * np.sign(w) * levels_w[np.abs(w)], alpha_w, bits_w, True)
    aq = run(scales[1] * levels_a[a], alpha_a, bits_a, False)
    np.testing.assert_allclose(aq @ wq.T, y, rtol=1e-5, atol=1e-12)
