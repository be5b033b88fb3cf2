import keras
import numpy as np
import pytest
import tensorflow as tf
from dull import Dull
from keras import ops

from kerasbits.host import Between
from kerasbits.layers import QuantizerLayer
from kerasbits.quantizers import BSQ, BayesianBits, Site

W = np.float32([[1.0, -2.0], [0.5, 0.25], [4.0, 0.0]])
KERNEL = Site("fc", "kernel", W.shape, -1, macs=6)
INPUT = Site("fc", "input", (3,), None, macs=6)


def host(quantizer=None, site=KERNEL):
    layer = QuantizerLayer(quantizer or Dull())
    layer.build_at(site, W)
    return layer


def variable(layer, name):
    return next(v for v in layer.variables if v.name == name)


def test_variables_are_stored_divided_by_their_rate():
    layer = host(Dull(gain=2.0, rate=4.0))
    assert float(variable(layer, "gain")) == 0.5
    assert layer.state()["gain"] == 2.0
    assert layer.state()["peak"] == 4.0  # the largest magnitude of the kernel
    np.testing.assert_array_equal(layer(W), 2 * W)


def test_the_rate_multiplies_the_learning_rate():
    gains = []
    for rate in (1.0, 8.0):
        layer = host(Dull(rate=rate))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(W))
        gradients = tape.gradient(loss, [v.value for v in layer.trainable_variables])
        # Adam's first step is the learning rate whatever the gradient's size.
        keras.optimizers.Adam(0.01).apply(gradients, layer.trainable_variables)
        gains.append(float(layer.state()["gain"]))
    assert gains == pytest.approx([2 - 0.01, 2 - 0.08], abs=1e-5)


def test_only_declared_variables_are_trained():
    layer = host()
    assert [v.name for v in layer.trainable_variables] == ["gain"]
    names = {v.name for v in layer.non_trainable_variables}
    assert names == {"calls", "fixed_bits", "peak", "share"}


def test_constraint_holds_in_units_of_the_value():
    layer = host(Dull(rate=4.0))
    gain = variable(layer, "gain")
    for stored, value in ((100.0, 3.0), (-1.0, 1.0), (0.6, 2.4)):
        gain.assign(gain.constraint(ops.convert_to_tensor(stored)))
        assert layer.state()["gain"] == pytest.approx(value, rel=1e-6)
    assert variable(layer, "calls").constraint is None


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [(None, None, [-5, 0, 5]), (-1, None, [-1, 0, 5]), (None, 2, [-5, 0, 2]), (-1, 2, [-1, 0, 2])],
)
def test_between(low, high, want):
    clip = Between(low, high)
    values = ops.convert_to_tensor(np.float32([-5, 0, 5]))
    np.testing.assert_array_equal(clip(values), np.float32(want))
    assert clip(ops.cast(values, "float16")).dtype == "float16"
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(clip))
    np.testing.assert_array_equal(again(values), np.float32(want))


def test_updates_are_assigned_in_training_only():
    layer = host()
    layer(W, training=False)
    assert layer.state()["calls"] == 0
    layer(W, training=True)
    layer(W, training=True)
    assert layer.state()["calls"] == 2


def test_loss_is_added_and_weighted_by_the_share():
    layer = host(Dull(gain=2.0, strength=0.5))
    layer(W)
    assert float(sum(layer.losses)) == 1.0
    layer.set_share(0.25)
    layer(W)
    assert float(sum(layer.losses)) == 0.25
    layer.assign({"fixed_bits": 4.0})
    layer(W)
    assert float(sum(layer.losses)) == 0.0


def test_share_acts_without_retracing():
    layer = host(Dull(gain=2.0, strength=0.5))
    traces = []

    @tf.function
    def loss():
        traces.append(1)
        layer(W)
        return sum(layer.losses)

    assert float(loss()) == 1.0
    layer.set_share(0.5)
    assert float(loss()) == 0.5
    assert traces == [1]


def test_assign_returns_what_it_wrote():
    layer = host()
    written = layer.assign({"fixed_bits": np.float64(3.0), "gain": np.float32(1.5)})
    assert [v.name for v in written] == ["fixed_bits", "gain"]
    assert layer.state()["gain"] == 1.5
    assert float(variable(layer, "gain")) == 1.5 / 4
    assert layer.state()["fixed_bits"] == 3


def test_reset_starts_anew_from_the_kernel():
    layer = host()
    layer.assign({"gain": 1.0, "calls": 9.0, "fixed_bits": 3.0})
    layer.reset(3 * W, names=["calls", "peak"])
    state = layer.state()
    assert (state["calls"], state["peak"]) == (0, 12)
    assert (state["gain"], state["fixed_bits"]) == (1, 3)
    layer.reset(W)
    state = layer.state()
    assert (state["gain"], state["fixed_bits"], state["peak"]) == (2, -1, 4)


def test_kernel_state_needs_a_kernel():
    layer = QuantizerLayer(Dull())
    with pytest.raises(ValueError, match="starts from a kernel"):
        layer.build_at(KERNEL)


def test_role_is_checked():
    with pytest.raises(ValueError, match=r"layer 'fc', input: expected .*kernel_quantizer.*BSQ"):
        QuantizerLayer(BSQ()).build_at(INPUT)


def test_building_twice_keeps_the_variables():
    layer = host()
    layer.assign({"gain": 1.25})
    layer.build_at(KERNEL, W)
    assert layer.state()["gain"] == 1.25


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_works_in_float32_and_returns_the_given_dtype(dtype):
    seen = []

    class Spy(Dull):
        def quantize(self, x, state, site, training=False, seed=None):
            seen.extend([x.dtype, *(v.dtype for v in state.values())])
            return super().quantize(x, state, site, training, seed)

    layer = host(Spy())
    y = layer(ops.cast(W, dtype))
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    assert {keras.backend.standardize_dtype(d) for d in seen} == {"float32"}


def test_first_batch_in_training_sets_what_is_observed():
    layer = host(site=INPUT)
    x = np.float32([[1.0, -5.0, 2.0]])
    layer(x, training=False)
    assert (layer.state()["seen"], layer.state()["top"]) == (0, 0)
    layer(x, training=True)
    assert (layer.state()["seen"], layer.state()["top"]) == (1, 5)
    layer(9 * x, training=True)
    assert layer.state()["top"] == 5


def test_observing_updates_in_inference():
    layer = host(site=INPUT)
    layer.observing = True
    for scale in (1, 3, 2):
        layer(np.float32([[scale, 0, -1]]), training=False)
    assert (layer.state()["seen"], layer.state()["top"], layer.state()["calls"]) == (1, 3, 0)


def test_random_numbers_only_where_needed():
    assert host().seed_generator is None
    layer = QuantizerLayer(BayesianBits(phi=0.0))
    layer.build_at(KERNEL, W)
    one, two = (ops.convert_to_numpy(layer(W, training=True)) for _ in range(2))
    assert np.any(one != two)
    one, two = (ops.convert_to_numpy(layer(W, training=False)) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_config_round_trip():
    layer = QuantizerLayer(Dull(gain=1.5), name="kernel_quantizer")
    again = QuantizerLayer.from_config(layer.get_config())
    assert again.quantizer == Dull(gain=1.5)
    assert again.name == "kernel_quantizer"
    assert again.dtype_policy.name == "float32"
    assert layer.compute_output_shape((2, 3)) == (2, 3)


def test_the_rate_of_a_host_multiplies_those_of_trained_variables():
    layer = QuantizerLayer(Dull(gain=2.0, rate=4.0), rate=0.5)
    layer.build_at(KERNEL, W)
    assert float(variable(layer, "gain")) == 1.0  # 2 / (4 * 0.5)
    assert layer.state()["gain"] == 2.0
    assert float(variable(layer, "peak")) == 4.0  # not trained, as it is
    layer.assign({"gain": 3.0})
    assert float(variable(layer, "gain")) == 1.5
    assert QuantizerLayer.from_config(layer.get_config()).rate == 0.5


@pytest.mark.parametrize("rate", [0, -1.0, 3.0, float("inf"), float("nan"), "2", True, None])
def test_a_rate_that_is_no_power_of_two(rate):
    with pytest.raises(ValueError, match="Dull: expected a rate that is a power of two, got"):
        QuantizerLayer(Dull(), rate=rate)
