"""The BayesianBits quantizer: configuration, inference, ranges and edges."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from quantizers.bayesian_bits_for_tests import (
    INPUT,
    KERNEL,
    SITE,
    frozen,
    input_at,
    kernel_at,
    run,
    start,
    tensors,
    value,
)

from kerasbits.maths import bayesian_bits as maths
from kerasbits.quantizers import ranges
from kerasbits.quantizers.base import Site
from kerasbits.quantizers.bayesian_bits import BayesianBits

RNG = np.random.default_rng(1)


# Configuration.


@pytest.mark.parametrize(
    "quantizer",
    [
        BayesianBits(),
        BayesianBits(0.5, "const", False, 8, 4, True, "official", 6.0, 1.0, None, False, False),
    ],
)
def test_config_round_trip(quantizer):
    assert BayesianBits.from_config(quantizer.get_config()) == quantizer
    text = keras.saving.serialize_keras_object(quantizer)
    assert text["registered_name"] == "kerasbits>BayesianBits"
    assert keras.saving.deserialize_keras_object(text) == quantizer


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("strength", -1.0), ("strength", float("nan")), ("cost", "macs"), ("prune", 1),
        ("max_bits", 6), ("min_bits", 0), ("signed", 1), ("init", "max"), ("phi", float("inf")),
        ("rate", 3.0), ("rate", 0.0), ("rate", -2.0), ("cutoff", "no"), ("keep_one", None),
        ("noise", 0),
    ],
)  # fmt: skip
def test_wrong_fields(field, wrong):
    with pytest.raises(ValueError, match=f"BayesianBits: expected {field}"):
        BayesianBits(**{field: wrong})


def test_min_bits_above_max_bits():
    with pytest.raises(ValueError, match="min_bits <= max_bits"):
        BayesianBits(min_bits=16, max_bits=8)


def test_variables():
    specs = BayesianBits(rate=4.0, phi=2.0).variables(SITE)
    assert specs["phi"].shape == (4,)
    assert specs["phi_prune"].shape == specs["fixed_mask"].shape == (5,)
    assert {n for n, s in specs.items() if s.trainable} == {"range", "phi", "phi_prune"}
    for name in ("phi", "phi_prune"):
        assert (specs[name].initial, specs[name].rate) == (2.0, 4.0)
    for quantizer, site in (
        (BayesianBits(prune=False), SITE),
        (BayesianBits(), dataclasses.replace(SITE, prunable=False)),
        (BayesianBits(), INPUT),
    ):
        assert not {"phi_prune", "fixed_mask"} & set(quantizer.variables(site))


def test_kernel_range_starts_at_its_largest_magnitude():
    w = np.array([[0.5, -2.0], [1.0, 0.25]], np.float32)
    site = Site(shape=w.shape)
    state = start(BayesianBits(), site, w)
    assert float(ranges.current_range(state)) == 2.0
    assert state["signed"] == 1
    assert start(BayesianBits(), site, abs(w))["signed"] == 0


def test_official_start_is_the_largest_value():
    quantizer = BayesianBits(init="official")
    w = np.array([[0.5, -2.0], [1.0, 0.25]], np.float32)
    site = Site(shape=w.shape)
    for values, beta in ((w, 1.0), (-abs(w), 1.0)):  # nothing positive: 1, as for zeros
        state = start(quantizer, site, values)
        assert float(ranges.current_range(state)) == beta
        assert state["signed"] == 1
    quantizer, state = input_at(8, w, init="official")
    assert (state["range_unit"], state["signed"], state["seen"]) == (1, 1, 1)
    quantizer, state = input_at(8, -abs(w), init="official")
    assert state["seen"] == 0  # no range can be told from nothing positive


# Inference.


@pytest.mark.parametrize("bits", maths.WIDTHS)
def test_inference_uses_the_open_gates(bits):
    quantizer, state = kernel_at(bits, kept=[1, 0, 1, 1, 0])
    y = run(quantizer, KERNEL, state, SITE)
    beta, mask = np.abs(KERNEL).max(), np.array([1, 0, 1, 1, 0])
    step = 2 * float(beta) / (2**bits - 1)
    exact = step * np.rint(np.clip(KERNEL.astype(np.float64), -beta, beta) * (1 - 1e-9) / step)
    assert np.abs(y - exact * mask).max() <= 4e-7 * beta  # float32 sums; no ties in the data
    assert value(quantizer.widths(state, SITE)).tolist() == (bits * mask).tolist()
    np.testing.assert_array_equal(y, run(quantizer, KERNEL, state, SITE))


def test_gates_outside_the_span_are_fixed():
    quantizer, state = kernel_at(32, max_bits=8)
    assert set(value(quantizer.widths(state, SITE))) == {8}
    quantizer, state = kernel_at(2, min_bits=4)
    state["phi"] = np.full(4, -6, np.float32)
    assert set(value(quantizer.widths(state, SITE))) == {4}
    quantizer, state = kernel_at(2, min_bits=8, max_bits=8, cutoff=-2.0)
    first = run(quantizer, KERNEL, state, SITE, training=True, seed=1)
    state["phi_prune"] = np.full(5, 50, np.float32)  # always open
    second = run(quantizer, KERNEL, state, SITE, training=True, seed=2)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(second, run(quantizer, KERNEL, state, SITE))


def test_cutoff_can_be_switched_off():
    seeds = range(40)
    outputs = {}
    for cutoff in (-2.0, None):
        quantizer, state = kernel_at(16, prune=False, cutoff=cutoff)
        state["phi"] = np.array([-2.1, 3, 3, 3], np.float32)
        ys = [run(quantizer, KERNEL, state, SITE, training=True, seed=s) for s in seeds]
        outputs[cutoff] = len({y.tobytes() for y in ys})
    assert outputs[-2.0] == 1  # the first gate is exactly 0, whatever the noise
    assert outputs[None] > 1


# Inputs.


def test_first_batch_sets_the_range():
    quantizer = BayesianBits()
    state = tensors(start(quantizer, INPUT))
    x = ops.convert_to_tensor(np.full((2, 6, 6, 2), -3, np.float32))
    y, updates = quantizer.apply(x, state, INPUT, training=True, seed=1)
    assert float(updates["range_unit"]) == 3
    assert float(updates["signed"]) == float(updates["seen"]) == 1
    np.testing.assert_allclose(value(y), -3, rtol=0.4)  # a sample of the gates, at worst ternary
    y, updates = quantizer.apply(x, state, INPUT, training=False)
    assert updates == {}
    np.testing.assert_allclose(value(y), -3, rtol=1e-6)


def test_unsigned_input_clips_negative_values():
    x = np.abs(RNG.normal(size=(2, 6, 6, 2))).astype(np.float32)
    quantizer, state = input_at(4, x)
    assert not run(quantizer, -x, state, INPUT).any()
    quantizer, state = input_at(4, -x, signed=False)
    assert state["signed"] == 0


# Edges.


@pytest.mark.parametrize("bits", maths.WIDTHS)
@pytest.mark.parametrize("w", [np.zeros((4, 3), np.float32), np.full((4, 3), 0.3, np.float32)])
def test_zero_and_constant_kernels(bits, w):
    site = Site("dense", shape=w.shape)
    quantizer, state = kernel_at(bits, w=w, site=site)
    state = frozen(quantizer, state, site)
    y = run(quantizer, w, state, site)
    np.testing.assert_allclose(y, w, atol=1e-6)  # the constant is the top level
    np.testing.assert_array_equal(quantizer.encode(w, state, site).decode(), y)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("freeze", [True, False])
def test_vanished_range_is_finite(training, freeze):
    quantizer, state = kernel_at(8)
    state["range"] = np.float32(0)
    state = frozen(quantizer, state, SITE) if freeze else state
    state = {k: tf.Variable(v) for k, v in state.items()}
    x = tf.constant(KERNEL)
    with tf.GradientTape() as tape:
        tape.watch(x)
        held = {k: v * 1.0 for k, v in state.items()}
        y, _ = quantizer.quantize(x, held, SITE, training=training, seed=1)
    names = ["range", "phi", "phi_prune"]
    found = tape.gradient(y, [x, *(state[n] for n in names)], unconnected_gradients="zero")
    assert all(np.isfinite(value(g)).all() for g in found)
    assert np.abs(value(y)).max() <= 1e-7


@pytest.mark.parametrize("freeze", [True, False])
def test_all_channels_pruned(freeze):
    phi = np.array([-9, -5, -4, -7, -8], np.float32)
    for keep_one, expected in ((True, [0, 0, 4, 0, 0]), (False, [0] * 5)):
        quantizer, state = kernel_at(4, keep_one=keep_one)
        state["phi_prune"] = phi
        state = frozen(quantizer, state, SITE) if freeze else state
        assert value(quantizer.widths(state, SITE)).tolist() == expected
        y = run(quantizer, KERNEL, state, SITE)
        assert y.any(axis=(0, 1, 2)).tolist() == [b > 0 for b in expected]
        if freeze:
            tensor = quantizer.encode(KERNEL, state, SITE)
            np.testing.assert_array_equal(tensor.decode(), y)
            assert tensor.bits.tolist() == expected


def test_keep_one_leaves_other_choices_alone():
    for keep_one in (True, False):
        quantizer, state = kernel_at(4, kept=[0, 1, 0, 1, 0], keep_one=keep_one)
        assert value(quantizer.widths(state, SITE)).tolist() == [0, 4, 0, 4, 0]


def test_half_precision_is_computed_in_float32():
    quantizer, state = kernel_at(8)
    half = ops.cast(KERNEL, "float16")
    y, _ = quantizer.quantize(half, tensors(state), SITE)
    assert y.dtype == half.dtype
    wide, _ = quantizer.quantize(ops.cast(half, "float32"), tensors(state), SITE)
    np.testing.assert_array_equal(value(y), value(wide).astype(np.float16))
