import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from quantizer_states import infer, initial_state, ulp_of_top, updated

from kerasbits.quantizers.base import Site
from kerasbits.quantizers.uniform import Uniform

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype(np.float32)
INPUT = Site("fc", "input", (6,), None)


def kernel_site(w):
    return Site("conv", "kernel", w.shape, -1)


@pytest.mark.parametrize(
    "quantizer",
    [Uniform(), Uniform(3, "channel"), Uniform(1, signed=False), Uniform(5, signed=True)],
)
def test_config_round_trip(quantizer):
    config = keras.saving.serialize_keras_object(quantizer)
    assert keras.saving.deserialize_keras_object(config) == quantizer
    assert config["registered_name"] == "kerasbits>Uniform"


@pytest.mark.parametrize(
    "fields",
    [
        {"bits": 0},
        {"bits": 17},
        {"bits": 4.0},
        {"bits": True},
        {"granularity": "layer"},
        {"signed": 1},
        {"bits": 1, "signed": True},
    ],
)
def test_wrong_fields(fields):
    with pytest.raises(ValueError, match=r"Uniform: expected .*, got"):
        Uniform(**fields)


def test_one_bit_kernel_points_to_the_binary_method():
    with pytest.raises(ValueError, match=r"'conv', kernel.*LeastSquaresBinary"):
        Uniform(bits=1).variables(kernel_site(KERNEL))


def test_input_has_one_scale():
    with pytest.raises(ValueError, match=r"'fc', input.*one scale"):
        Uniform(granularity="channel").variables(INPUT)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize(
    ("bits", "signed"), [(2, None), (4, None), (8, None), (16, None), (1, False)]
)
def test_codes_are_those_of_quantize(granularity, bits, signed):
    quantizer, site = Uniform(bits, granularity, signed), kernel_site(KERNEL)
    state = initial_state(quantizer, site, KERNEL)
    state["range"] = (state["range"] * 0.6).astype(np.float32)  # some weights are clipped
    y = infer(quantizer, KERNEL, state, site)
    pack = quantizer.encode(KERNEL, state, site)
    np.testing.assert_array_equal(pack.decode(), y)  # same products in the same order
    assert pack.codes.dtype == np.uint16
    assert pack.codes.max() < 2**bits
    np.testing.assert_array_equal(pack.bits, np.full(4, bits))
    assert float(quantizer.widths(state, site)) == bits
    assert pack.encoding.scale.shape == ((4,) if granularity == "channel" else (1,))
    assert len(np.unique(y[..., 0])) > 1


def test_other_channel_axis():
    quantizer = Uniform(4, "channel")
    site = Site("conv", "kernel", KERNEL.shape, 2)
    state = initial_state(quantizer, site, KERNEL)
    np.testing.assert_array_equal(state["range_unit"], np.abs(KERNEL).max(axis=(0, 1, 3)))
    pack = quantizer.encode(KERNEL, state, site)
    assert pack.channel_axis == 2
    np.testing.assert_array_equal(pack.decode(), infer(quantizer, KERNEL, state, site))


def test_kernel_range_follows_the_data():
    site = kernel_site(KERNEL)
    state = initial_state(Uniform(), site, KERNEL)
    assert state["range_unit"] == np.abs(KERNEL).max()
    assert state["signed"] == 1
    assert initial_state(Uniform(), site, np.abs(KERNEL))["signed"] == 0
    assert initial_state(Uniform(signed=True), site, np.abs(KERNEL))["signed"] == 1
    unsigned = initial_state(Uniform(signed=False), site, KERNEL)
    assert (unsigned["signed"], unsigned["range_unit"]) == (0, KERNEL.max())


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("value", [0.0, 0.25, -0.25])
def test_constant_kernels(granularity, value):
    w = np.full((1, 1), value, np.float32)
    quantizer, site = Uniform(4, granularity), kernel_site(w)
    state = initial_state(quantizer, site, w)
    y = infer(quantizer, w, state, site)
    np.testing.assert_allclose(y, w, atol=ulp_of_top(1.0))
    np.testing.assert_array_equal(quantizer.encode(w, state, site).decode(), y)


def test_kernel_that_starts_at_zero_can_grow_both_ways():
    w = np.zeros((4, 2), np.float32)
    site = kernel_site(w)
    for granularity in ("tensor", "channel"):
        quantizer = Uniform(8, granularity)
        state = initial_state(quantizer, site, w)
        np.testing.assert_array_equal(infer(quantizer, w, state, site), w)
        grown = np.float32([[0.5, -0.5]] * 4)
        # Half a step of a range of 1.
        np.testing.assert_allclose(infer(quantizer, grown, state, site), grown, atol=0.5 / 127)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_kernel_must_be_finite(bad):
    w = KERNEL.copy()
    w[0, 0, 0, 0] = bad
    state = initial_state(Uniform(), kernel_site(w), KERNEL)
    with pytest.raises(ValueError, match="'conv', kernel: expected a finite kernel, got 1"):
        Uniform().encode(w, state, kernel_site(w))


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [1, 2, 5, 8, 16])
def test_grid_is_quantize(bits, signed):
    quantizer = Uniform(bits)
    x = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)
    x = x if signed else np.abs(x)
    state = initial_state(quantizer, INPUT)
    _, updates = quantizer.apply(x, state, INPUT, training=True)
    state = updated(state, updates)
    state["range"] = np.float32(0.7)
    grid = quantizer.grid(state, INPUT)
    assert grid.bits == bits
    codes = grid.codes(x)
    np.testing.assert_array_equal(grid.values(codes), infer(quantizer, x, state, INPUT))
    assert codes.max() < 2**bits
    assert grid.values(np.array([grid.zero])) == 0


def test_first_batch_sets_the_range():
    quantizer = Uniform(8)
    state = initial_state(quantizer, INPUT)
    x = np.float32([[1.0, 4.0, 0.0, 2.0, 3.0, 2.5]])
    y, updates = quantizer.apply(ops.convert_to_tensor(x), state, INPUT, training=True)
    np.testing.assert_allclose(y, x, atol=2.0 / 255)  # half a step
    assert set(updates) == set(quantizer.observed(INPUT))
    state = updated(state, updates)
    assert (state["range_unit"], state["seen"], state["signed"]) == (4, 1, 0)
    # Later batches leave the range to the optimizer.
    later = updated(state, quantizer.apply(x * 9, state, INPUT, training=True)[1])
    assert later["range_unit"] == 4
    assert ops.max(quantizer.apply(x * 9, state, INPUT)[0]) == 4


@pytest.mark.parametrize("top", [1e-10, 1e-18])
def test_tiny_inputs_have_a_range(top):
    """Untrained deep networks shrink their values layer by layer."""
    quantizer = Uniform(8)
    x = np.float32(top) * np.linspace(0, 1, 6, dtype=np.float32)[None]
    state = initial_state(quantizer, INPUT)
    state = updated(state, quantizer.observe(ops.convert_to_tensor(x), state, INPUT))
    assert state["seen"] == 1
    np.testing.assert_allclose(infer(quantizer, x, state, INPUT), x, rtol=0, atol=top / 255)


def test_inference_before_any_training_uses_the_data_and_stores_nothing():
    state = initial_state(Uniform(), INPUT)
    y, updates = Uniform().apply(np.full((1, 6), -5.0, np.float32), state, INPUT)
    np.testing.assert_allclose(y, -5.0, rtol=1e-6)
    assert updates == {}
    with pytest.raises(ValueError, match=r"'fc', input.*calibrate"):
        Uniform().grid(state, INPUT)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_useless_first_batch_does_not_poison(value):
    quantizer = Uniform()
    state = initial_state(quantizer, INPUT)
    x = np.full((2, 6), value, np.float32)
    y, updates = quantizer.apply(x, state, INPUT, training=True)
    if value == 0:
        np.testing.assert_array_equal(y, x)
    if np.isnan(value):
        assert np.isnan(ops.convert_to_numpy(y)).all()
    state = updated(state, updates)
    assert state["seen"] == 0
    state = updated(
        state,
        quantizer.apply(
            x * 0 + 3 if value == 0 else np.full_like(x, 3), state, INPUT, training=True
        )[1],
    )
    assert (state["seen"], state["range_unit"]) == (1, 3)


def test_calibration_keeps_the_largest_and_any_sign():
    quantizer = Uniform()
    state = initial_state(quantizer, INPUT)
    for batch in ([1.0], [-3.0], [2.0], [np.nan], [0.0]):
        state = updated(state, quantizer.observe(np.float32(batch), state, INPUT))
    assert (state["range_unit"], state["signed"], state["seen"]) == (3, 1, 1)


def test_calibration_after_training_gives_the_observed_threshold():
    quantizer = Uniform()
    state = {**initial_state(quantizer, INPUT), "range": np.float32(0.5)}
    state = updated(state, quantizer.observe(np.float32([6.0]), state, INPUT))
    assert quantizer.grid(state, INPUT).hi == 6


@pytest.mark.parametrize(("signed", "want"), [(True, (1, 5)), (False, (0, 2))])
def test_given_sign_wins(signed, want):
    quantizer = Uniform(signed=signed)
    state = initial_state(quantizer, INPUT)
    state = updated(state, quantizer.observe(np.float32([-5.0, 2.0]), state, INPUT))
    assert (state["signed"], state["range_unit"]) == want


def test_range_is_learned_relative_to_its_unit():
    quantizer, site = Uniform(3), kernel_site(KERNEL)
    state = {n: tf.constant(v) for n, v in initial_state(quantizer, site, KERNEL).items()}
    state["range"] = tf.constant(0.5)
    with tf.GradientTape() as tape:
        tape.watch(state)
        y, _ = quantizer.quantize(tf.constant(KERNEL), state, site)
        loss = tf.reduce_sum(y)
    grads = tape.gradient(loss, state)
    beta = 0.5 * np.abs(KERNEL).max()
    clipped = np.clip(KERNEL, -beta, beta)
    want = np.where(np.abs(KERNEL) > beta, np.sign(KERNEL), (y.numpy() - clipped) / beta)
    unit = float(state["range_unit"])
    # Sum of 72 float32 terms of size 1 times the unit.
    assert float(grads["range"]) == pytest.approx(want.sum() * unit, abs=72 * 1e-6 * unit)
    assert grads["range_unit"] is None


def test_frozen_is_fixed_already():
    state = initial_state(Uniform(), kernel_site(KERNEL), KERNEL)
    assert Uniform().freeze(state, kernel_site(KERNEL)) == {}
    assert Uniform().loss(state, kernel_site(KERNEL)) is None


@pytest.mark.parametrize("jit", [False, True])
def test_graph_and_jit(jit):
    quantizer = Uniform(4)
    state = {n: tf.constant(v) for n, v in initial_state(quantizer, INPUT).items()}
    x = tf.constant(np.random.default_rng(2).normal(size=(7, 6)).astype(np.float32))

    @tf.function(jit_compile=jit)
    def step(x, state):
        return quantizer.apply(x, state, INPUT, training=True)

    y, updates = step(x, state)
    want, want_updates = quantizer.apply(x, state, INPUT, training=True)
    # XLA may fuse the products: a few ulp of the top level.
    np.testing.assert_allclose(y, want, rtol=0, atol=4 * ulp_of_top(want.numpy()))
    for name in want_updates:
        np.testing.assert_array_equal(updates[name], want_updates[name])
    y2, _ = step(x * 2, {**state, **updates})  # other state, no rebuild
    assert float(tf.reduce_max(tf.abs(y2))) == pytest.approx(float(tf.reduce_max(tf.abs(x))))


def test_frozen_dataclass():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Uniform().bits = 3
