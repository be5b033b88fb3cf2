"""Reference vectors of Bayesian Bits."""

import golden_files
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from maths.bayesian_bits_for_tests import CUTOFF, tensor, value

from kerasbits.maths import bayesian_bits as bb
from kerasbits.maths import hard_concrete as hc

GOLDEN = golden_files.load("bayesian_bits")
EVAL = golden_files.cases(GOLDEN, "e", "x")
TRAIN = golden_files.cases(GOLDEN, "t", "x")


def case(name):
    prefix = name + "_"
    return {k[len(prefix) :]: v for k, v in GOLDEN.items() if k.startswith(prefix)}


def over_channels(gate, x):
    """The channel is on axis 0 in the reference files."""
    return ops.reshape(gate, (-1,) + (1,) * (len(x.shape) - 1))


# Reference vectors, inference.


def test_files_hold_cases():
    assert len(EVAL) == GOLDEN["n_eval"]
    assert len(TRAIN) == GOLDEN["n_train"]


def gated_case(c, dtype):
    x, phi = tensor(c["x"], dtype), tensor(c["phi"], dtype)
    gates = hc.inference_gate(phi) * hc.uncut(phi, CUTOFF)
    mask = hc.inference_gate(tensor(c["phi2"], dtype)) if c["phi2"].size else 1.0
    wide = over_channels(mask, x) if c["phi2"].size else 1.0
    y = bb.quantize_gated(x, tensor(c["x_max"], dtype), tensor(c["signed"], dtype), gates, wide)
    return value(y), gates, mask


@pytest.mark.parametrize("name", EVAL)
def test_reference_inference_float64(name):
    c = case(name)
    y, gates, mask = gated_case(c, "float64")
    # Differences of order 1e-16 beta in the sums.
    np.testing.assert_allclose(y, c["y64"], rtol=0, atol=1e-12 * c["x_max"])
    assert float(bb.effective_bits(gates)) == c["bits"]
    np.testing.assert_array_equal(np.broadcast_to(mask, c["z2"].shape), c["z2"])


@pytest.mark.parametrize("name", EVAL)
def test_reference_inference_float32(name):
    c = case(name)
    y, _, _ = gated_case(c, "float32")
    # An ulp of beta is 1.2e-7 beta. At 16 bits a step is 3e-5 beta, and rounding noise in the
    # residual moves a few elements by one.
    off = np.abs(y.astype(np.float64) - c["y32"]) > 2e-7 * c["x_max"]
    if c["bits"] == 16:
        assert np.abs(y - c["y32"]).max() <= 1.01 * c["scale"]
        assert off.mean() <= 0.05
    else:
        assert not off.any()


@pytest.mark.parametrize("name", EVAL)
def test_reference_fixed_width(name):
    c = case(name)
    x, beta, signed = tensor(c["x"]), tensor(c["x_max"]), tensor(c["signed"])
    mask = over_channels(tensor(c["z2"]), x)
    codes, step = bb.fixed_codes(x, beta, signed, tensor(c["bits"]))
    assert float(step) == pytest.approx(float(c["scale"]), rel=1e-12)
    np.testing.assert_array_equal(value(codes * mask), c["code"])  # whole numbers: exact
    y = value(bb.quantize_fixed(x, beta, signed, tensor(c["bits"])) * mask)
    np.testing.assert_allclose(y, c["y_direct64"], rtol=0, atol=1e-12 * c["x_max"])


# Reference vectors, training.


def trained_case(c):
    x, beta, phi = tensor(c["x"]), tensor(c["x_max"]), tensor(c["phi"])
    phi2 = tensor(c["phi2"])
    with tf.GradientTape() as tape:
        tape.watch([x, beta, phi, phi2])
        gates = hc.sample_gate(phi, tensor(c["u"])) * hc.uncut(phi, CUTOFF)
        z2 = hc.sample_gate(phi2, tensor(c["u2"]))
        wide = over_channels(z2, x) if c["phi2"].size else 1.0
        y = bb.quantize_gated(x, beta, tensor(c["signed"]), gates, wide)
    gradients = tape.gradient(
        y, [x, beta, phi, phi2], tensor(c["gy"]), unconnected_gradients="zero"
    )
    return {
        "z": gates,
        "z2": z2,
        "y": y,
        **dict(zip(("gx", "gx_max", "gphi", "gphi2"), gradients, strict=True)),
    }


@pytest.mark.parametrize("name", TRAIN)
def test_reference_training(name):
    c = case(name)
    got = trained_case(c)
    for key, tensors in got.items():
        # Relative to the largest entry: sums over elements cancel.
        size = max(1.0, np.abs(c[key]).max(initial=0))
        np.testing.assert_allclose(value(tensors), c[key], rtol=0, atol=1e-10 * size, err_msg=key)


@pytest.mark.parametrize("name", TRAIN)
def test_reference_regularizer(name):
    c = case(name)
    phi, phi2 = tensor(c["phi"]), tensor(c["phi2"])
    share = 1.0 if c["reg_type"] == "const" else float(c["macs"] / c["max_macs"])
    costs = [1.0 if c["reg_type"] == "const" else b * share for b in bb.WIDTHS]
    with tf.GradientTape() as tape:
        tape.watch([phi, phi2])
        on2 = hc.probability_on(phi2) if c["phi2"].size else None
        total = bb.expected_cost(hc.probability_on(phi), on2, costs)
    gphi, gphi2 = tape.gradient(total, [phi, phi2], unconnected_gradients="zero")
    # The original holds a float32 constant.
    assert float(total) == pytest.approx(float(c["reg"]), rel=1e-6)
    for got, key in ((gphi, "reg_gphi"), (gphi2, "reg_gphi2")):
        size = np.abs(c[key]).max(initial=0)
        np.testing.assert_allclose(value(got), c[key], rtol=0, atol=1e-6 * size, err_msg=key)


def test_every_array_of_the_file_is_read():
    # A new kind of array in the file must not go unchecked.
    shared = {"x", "x_max", "signed", "phi", "phi2"}
    read = {
        "e": shared | {"bits", "z2", "scale", "code", "y64", "y32", "y_direct64"},
        "t": shared
        | {"u", "u2", "z", "z2", "y", "gy", "gx", "gx_max", "gphi", "gphi2"}
        | {"reg_type", "macs", "max_macs", "reg", "reg_gphi", "reg_gphi2"},
        "s": {"phi", "prob_on", "gate", "gate_noise_free", "u", "sample"},
        "n": {"eval", "train"},
    }
    for key in GOLDEN:
        first, array = key.split("_", 1)
        assert array in read[first[0]], key
