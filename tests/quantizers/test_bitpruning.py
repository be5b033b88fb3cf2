"""The BitPruning quantizer: configuration, codes and freezing."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from quantizer_states import infer, initial_state, ulp_of_top, updated
from quantizers.bitpruning_for_tests import CONV, INPUT, KERNEL, frozen, tensors

from kerasbits.quantizers.base import Site
from kerasbits.quantizers.bitpruning import BitPruning


@pytest.mark.parametrize(
    "quantizer",
    [
        BitPruning(),
        BitPruning(4.5, 0.3, "macs", "channel", 8, 1.0, "fixed", "round", "integer"),
        BitPruning(bits=2, cost="footprint", range_mode="batch"),
    ],
)
def test_config_round_trip(quantizer):
    config = keras.saving.serialize_keras_object(quantizer)
    assert keras.saving.deserialize_keras_object(config) == quantizer
    assert config["registered_name"] == "kerasbits>BitPruning"


@pytest.mark.parametrize(
    "fields",
    [
        {"bits": 0.5},
        {"bits": 17},
        {"bits": float("nan")},
        {"bits": 9, "max_bits": 8},
        {"max_bits": 17},
        {"max_bits": 1, "bits": 1},
        {"max_bits": 8.0},
        {"strength": -1},
        {"strength": "much"},
        {"cost": "size"},
        {"granularity": "layer"},
        {"rate": 3.0},
        {"rate": 0.0},
        {"rate": -2.0},
        {"range_mode": "minmax"},
        {"rounding": "floor"},
        {"zero_point": 0},
    ],
)
def test_wrong_fields(fields):
    with pytest.raises(ValueError, match=r"BitPruning: expected .*, got"):
        BitPruning(**fields)


def test_variables():
    kernel = BitPruning(6.5, granularity="channel", max_bits=8).variables(CONV)
    assert set(kernel) == {"bits", "fixed_bits"}
    bits = kernel["bits"]
    assert (bits.shape, bits.initial, bits.trainable) == ((4,), 6.5, True)
    assert (bits.min, bits.max, bits.rate) == (1, 8, 16)
    assert not kernel["fixed_bits"].trainable
    assert set(BitPruning().variables(INPUT)) == {"bits", "fixed_bits", "lo", "hi", "seen"}
    assert set(BitPruning(range_mode="batch").variables(INPUT)) == {"bits", "fixed_bits"}


def test_input_has_one_scale():
    with pytest.raises(ValueError, match=r"'fc', input.*one scale"):
        BitPruning(granularity="channel").variables(INPUT)


def test_empty_kernel_is_an_error_at_build_time():
    with pytest.raises(ValueError, match=r"'c', kernel: expected .*at least one element"):
        BitPruning().variables(Site("c", "kernel", (3, 0), -1))


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("zero_point", ["real", "integer"])
@pytest.mark.parametrize("axis", [-1, 2])
@pytest.mark.parametrize("bits", [1.0, 2.4, 4.0, 7.7, 16.0])
def test_codes_are_those_of_quantize(granularity, zero_point, axis, bits):
    quantizer = BitPruning(bits, granularity=granularity, zero_point=zero_point)
    site = Site("conv", "kernel", KERNEL.shape, axis)
    state = initial_state(quantizer, site)
    if granularity == "channel":
        state["bits"] = np.linspace(1, bits, site.channels).astype(np.float32)
    state = frozen(quantizer, state, site)
    pack = quantizer.encode(KERNEL, state, site)
    # The same products and sums in the same order: no tolerance.
    np.testing.assert_array_equal(pack.decode(), infer(quantizer, KERNEL, state, site))
    want = np.broadcast_to(np.ceil(state["bits"]), site.channels)
    np.testing.assert_array_equal(pack.bits, want)
    np.testing.assert_array_equal(quantizer.widths(state, site), np.ceil(state["bits"]))
    codes = np.moveaxis(pack.codes, axis, -1)
    assert np.all(codes < 2.0**pack.bits)
    if zero_point == "integer":
        assert not pack.encoding.origin.any()
        zero = np.zeros_like(KERNEL)
        zero[0, 0] = KERNEL[0, 0]
        packed_zero = quantizer.encode(zero, state, site)
        assert not packed_zero.decode()[1:].any()  # 0 stays exactly 0


def test_real_bits_cannot_be_encoded():
    state = initial_state(BitPruning(4.5), CONV)
    with pytest.raises(ValueError, match=r"'conv', kernel: expected whole bits.*freeze"):
        BitPruning(4.5).encode(KERNEL, state, CONV)
    state = updated(initial_state(BitPruning(4.5), INPUT), {"seen": np.float32(1)})
    with pytest.raises(ValueError, match=r"'fc', input: expected whole bits"):
        BitPruning(4.5).grid(state, INPUT)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_kernel_must_be_finite(bad):
    w = KERNEL.copy()
    w[0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match="'conv', kernel: expected a finite kernel"):
        BitPruning().encode(w, initial_state(BitPruning(), CONV), CONV)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("zero_point", ["real", "integer"])
@pytest.mark.parametrize("value", [0.0, 2.5, -0.75])
def test_constant_kernels(granularity, zero_point, value):
    w = np.full((1, 1), value, np.float32)
    quantizer = BitPruning(3.4, granularity=granularity, zero_point=zero_point)
    site = Site("one", "kernel", w.shape, -1)
    state = tensors(initial_state(quantizer, site))
    with tf.GradientTape() as tape:
        tape.watch(state)
        y, _ = quantizer.quantize(w, state, site, training=True)
    # With a whole zero the grid spans 0..value and reaches value by a product.
    atol = 0 if zero_point == "real" else 2 * ulp_of_top(2.5)
    np.testing.assert_allclose(y, w, atol=atol, rtol=0)
    gradient = tape.gradient(y, state)["bits"].numpy()
    assert np.all(np.abs(gradient) <= atol)
    done = frozen(quantizer, initial_state(quantizer, site), site)
    np.testing.assert_array_equal(
        quantizer.encode(w, done, site).decode(), infer(quantizer, w, done, site)
    )


# Freezing.


@pytest.mark.parametrize(
    ("rounding", "learned", "want"),
    [
        ("ceil", 3.2, 4),
        ("round", 3.2, 3),
        ("ceil", 4.0000005, 4),
        ("ceil", 0.2, 1),
        ("round", 40.0, 16),
    ],
)
def test_freeze(rounding, learned, want):
    quantizer = BitPruning(rounding=rounding)
    state = {**initial_state(quantizer, CONV), "bits": np.float32(learned)}
    done = frozen(quantizer, state, CONV)
    assert done["fixed_bits"] == want
    assert float(quantizer.widths(done, CONV)) == want
    # Whatever an optimizer's momentum does to the learned bits later:
    moved = {**done, "bits": np.float32(9.9)}
    np.testing.assert_array_equal(
        infer(quantizer, KERNEL, moved, CONV),
        infer(BitPruning(float(want)), KERNEL, initial_state(BitPruning(float(want)), CONV), CONV),
    )
    assert frozen(quantizer, moved, CONV)["fixed_bits"] == want  # idempotent
    assert float(quantizer.loss(tensors(moved), CONV)) == 0


def test_frozen_bits_have_no_gradient():
    state = tensors(frozen(BitPruning(3.5), initial_state(BitPruning(3.5), CONV), CONV))
    with tf.GradientTape() as tape:
        tape.watch(state["bits"])
        y, _ = BitPruning(3.5).quantize(KERNEL, state, CONV, training=True)
        total = tf.reduce_sum(y * KERNEL) + BitPruning(3.5).loss(state, CONV)
    gradient = tape.gradient(total, state["bits"])
    assert gradient is None or float(gradient) == 0


def test_freezing_nan_is_an_error():
    state = {**initial_state(BitPruning(), CONV), "bits": np.float32(np.nan)}
    with pytest.raises(ValueError, match=r"'conv', kernel: expected learned bits.*NaN"):
        BitPruning().freeze(state, CONV)
