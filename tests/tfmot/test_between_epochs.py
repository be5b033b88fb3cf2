"""Calibrate, adjust, freeze and the report, on tf_keras models."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras_models import METHODS, batch, compiled, inputs_for, network, outputs, trained

import kerasbits as kb
from kerasbits import sites, slots
from kerasbits.tfmot import callbacks, quantize_model

Adam, legacy = tf_keras.optimizers.Adam, tf_keras.optimizers.legacy
scaled = tf_keras.mixed_precision.LossScaleOptimizer
OPTIMIZERS = {
    "adam": (lambda: Adam(0.01, amsgrad=True), 3),
    "ema": (lambda: Adam(0.01, use_ema=True), 3),
    "momentum": (lambda: tf_keras.optimizers.SGD(0.01, momentum=0.9), 1),
    "legacy": (lambda: legacy.Adam(0.01), 2),
    "scaled": (lambda: scaled(Adam(0.01)), 2),
    "scaled legacy": (lambda: scaled(legacy.Adam(0.01)), 2),
}


def test_calibrate_sets_the_ranges_of_inputs():
    model, x = quantize_model(network(), "apot", "uniform"), batch()[0]
    kb.calibrate(model, x, batch_size=len(x))
    state = model.get_layer("conv").hosts["input"].state()
    assert float(state["range"] * state["range_unit"]) == pytest.approx(np.abs(x).max())
    ranges = [p.host.state()["seen"] for p in sites.places(model, "input")]
    assert ranges == [1.0] * 4
    kb.calibrate(model, [x[:8], x[8:]])
    with pytest.raises(ValueError, match="NaN or inf in batch 1"):
        kb.calibrate(model, x * np.nan)
    assert [p.host.state()["seen"] for p in sites.places(model, "input")] == ranges


@pytest.mark.parametrize("method", METHODS)
def test_freeze_makes_bits_whole_and_is_idempotent(method):
    model = quantize_model(network(), method, inputs_for(method))
    kb.calibrate(model, batch()[0])
    kb.freeze(model)
    states = [p.host.state() for p in sites.places(model)]
    bits = [row.bits for row in kb.report(model).rows]
    assert bits == [round(b) for b in bits] or method == "least_squares_binary"
    kb.freeze(model)
    for old, new in zip(states, [p.host.state() for p in sites.places(model)], strict=True):
        assert all(np.array_equal(old[name], new[name]) for name in old)
    x = batch()[0]
    for place in sites.places(model, "kernel"):
        seen = place.layer.kernel.numpy().reshape(place.host.site.shape)
        packed = place.quantizer.encode(seen, place.host.state(), place.host.site)
        used = place.host(place.layer.kernel, False).numpy().reshape(seen.shape)
        np.testing.assert_allclose(packed.decode(), used, rtol=1e-6, atol=1e-6)
    assert np.isfinite(outputs(model, x)).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_forgets_what_was_rewritten_and_nothing_else(name):
    make, count = OPTIMIZERS[name]
    model = compiled(quantize_model(network(), kb.BSQ(strength=0.5)), make(), run_eagerly=True)
    trained(model)
    optimizer = model.optimizer
    find = slots._legacy_slots if hasattr(optimizer, "get_slot_names") else slots._slots
    found = list(find(optimizer, model.trainable_variables))
    assert len(found) == count * len(model.trainable_variables)
    before = [slot.numpy() for _, slot, _ in found]
    rewritten = ("positive", "negative", "scale")
    kb.adjust(model)
    for (kind, slot, owner), old in zip(found, before, strict=True):
        if not any(owner.name.endswith(f"/{n}:0") for n in rewritten):
            np.testing.assert_array_equal(slot.numpy(), old)
        elif kind == "average":
            np.testing.assert_array_equal(slot.numpy(), owner.numpy())
        else:
            assert np.any(old != 0) or not np.any(owner.numpy())
            assert not np.any(slot.numpy()), slot.name


def test_what_diverged_is_never_frozen():
    model = quantize_model(network(), "bitpruning")
    host = model.get_layer("last").hosts["kernel"]
    host.assign({"bits": np.float32(np.nan)})
    with pytest.raises(ValueError, match="layer 'last', kernel: expected finite values in 'bits'"):
        kb.freeze(model)
    assert model.get_layer("conv").hosts["kernel"].state()["fixed_bits"] == -1


def test_the_report_counts_float_kernels_as_keras_3_does():
    model = quantize_model(network(), "bitpruning", rules={"conv": None})
    row = kb.report(model).rows[0]
    assert (row.name, row.layer, row.method, row.shape) == ("conv", "Conv2D", "float", (3, 3, 2, 4))
    kb.summary(model)
    table = tf_keras.Sequential(
        [tf_keras.layers.Input((3,)), tf_keras.layers.EinsumDense("ab,bc->ac", 4, bias_axes="c")]
    )
    assert [row.weights for row in kb.report(table).rows] == [12]


def test_losses_weigh_the_whole_network():
    model = quantize_model(network(), kb.BitPruning(strength=1.0))
    assert float(tf.add_n(model.losses)) == pytest.approx(8.0)  # 8 bits on average


def test_budget_steers_between_epochs():
    model = compiled(quantize_model(network(), kb.BitPruning(strength=0.01)), run_eagerly=True)
    budget = callbacks.Budget(size=0.3 * kb.report(model).weight_bytes)
    x, y = batch()
    with pytest.warns(UserWarning, match="Budget: frozen now"):
        history = model.fit(x, y, epochs=2, verbose=0, callbacks=[budget]).history
    assert history["pressure"][1] == budget.pressure > 1
    shares = [p.host.site.share for p in sites.places(model)]
    kb.set_shares(model)
    assert shares == [p.host.site.share for p in sites.places(model)]
