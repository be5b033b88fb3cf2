"""Every method trains through tfmot, however the steps are run."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras_models import METHODS, batch, compiled, inputs_for, network, outputs, small, trained

import kerasbits as kb
from kerasbits import sites
from kerasbits.tfmot import callbacks, quantize_model

MODES = {"graph": {}, "jit": {"jit_compile": True}, "eager": {"run_eagerly": True}}


def quantized(method, inputs=None, make=small, **kwargs):
    tf_keras.utils.set_random_seed(7)
    return quantize_model(make(), method, inputs, **kwargs)


def states(model):
    """State of all quantizers by path, role and name."""
    return {
        (p.path, p.role, name): value
        for p in sites.places(model)
        for name, value in p.host.state().items()
    }


@pytest.mark.parametrize("method", METHODS)
def test_methods_train_alike_in_graph_jit_and_eager(method):
    found = {}
    for mode, arguments in MODES.items():
        model = compiled(quantized(method, inputs_for(method)), **arguments)
        before = states(model)
        losses = trained(model, epochs=2)
        assert losses[1] < losses[0]
        after = states(model)
        moved = {key[:2] for key in before if np.any(before[key] != after[key])}
        assert moved == {key[:2] for key in before}
        found[mode] = losses, outputs(model, batch()[0])
    if method != "bayesian_bits":  # XLA draws other numbers
        np.testing.assert_allclose(found["jit"][0], found["graph"][0], rtol=1e-3)
    np.testing.assert_allclose(found["eager"][0], found["graph"][0], rtol=1e-3)


def test_a_loop_of_ones_own():
    model = quantized(kb.BitPruning(strength=1.0), "uniform")
    optimizer = tf_keras.optimizers.Adam(0.05)
    x, y = batch()

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = tf.reduce_mean(tf_keras.losses.sparse_categorical_crossentropy(y, logits, True))
            loss += tf.add_n(model.losses)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    losses = [float(step()) for _ in range(4)]
    assert losses == sorted(losses, reverse=True)
    bits = kb.report(model).average_bits
    assert bits < 8
    kb.freeze(model)
    assert float(tf.add_n(model.losses)) == 0
    assert float(kb.report(model).average_bits) == round(kb.report(model).average_bits)


def test_the_rate_multiplies_the_learning_rate_of_the_bits():
    moved = []
    for rate in (1.0, 4.0):
        model = compiled(quantized(kb.BitPruning(strength=10.0), rate=rate), run_eagerly=True)
        trained(model)
        moved.append(8 - kb.report(model).average_bits)
    assert moved[1] == pytest.approx(4 * moved[0], rel=1e-3)


def test_only_annotated_layers_get_quantizers_and_batch_norm_is_left_alone():
    model = quantized("bitpruning", "uniform", network, rules={"sep": None})
    assert type(model.get_layer("norm")) is tf_keras.layers.BatchNormalization
    assert type(model.get_layer("sep")) is tf_keras.layers.SeparableConv2D
    assert [row.method for row in kb.report(model).rows] == ["BitPruning", "float", "BitPruning"]
    before = model.get_layer("norm").moving_mean.numpy()
    trained(compiled(model))
    assert np.any(before != model.get_layer("norm").moving_mean.numpy())


def test_callbacks_adjust_log_and_freeze(capsys):
    model = compiled(quantized(kb.BSQ(strength=0.5)), run_eagerly=True)
    fixed = []

    class Watch(tf_keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            fixed.append(float(self.model.get_layer("conv").hosts["kernel"].state()["fixed_bits"]))

    x, y = batch()
    history = model.fit(
        x, y, epochs=3, batch_size=16, verbose=0,
        callbacks=[
            callbacks.AdjustBits(), callbacks.FreezeBits(2), Watch(), callbacks.LogBits(),
            callbacks.Progress(),
        ],
    ).history  # fmt: skip
    assert fixed[:2] == [-1, -1]
    assert fixed[2] >= 0
    report = kb.report(model)
    assert history["average_bits"][-1] == pytest.approx(report.average_bits)
    assert history["bits/last"][-1] == pytest.approx(report.rows[1].bits)
    assert history["weight_kib"][-1] == pytest.approx(report.weight_bytes / 1024)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:9] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all("bits" in line and "KiB" in line for line in lines)


def test_input_ranges_start_from_the_first_batch():
    model = compiled(quantized("uniform", "uniform"), tf_keras.optimizers.SGD(0.0))
    x, y = batch()
    host = model.get_layer("conv").hosts["input"]
    assert host.state()["seen"] == 0
    model.fit(x[:16], y[:16], batch_size=16, verbose=0)
    assert host.state()["seen"] == 1
    reach = host.state()["range"] * host.state()["range_unit"]
    assert float(reach) == pytest.approx(np.abs(x[:16]).max(), rel=1e-5)
