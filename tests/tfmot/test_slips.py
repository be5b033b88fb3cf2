"""Slips that would do nothing on tf_keras models, or fail without a word of the cause."""

import re

import keras
import pytest
import tf_keras
from tf_keras_models import batch, compiled, network

import kerasbits as kb
from kerasbits import tfmot

NAMES = {"AdjustBits": (), "FreezeBits": (0,), "LogBits": (), "Progress": ()}


def raises(message):
    return pytest.raises(ValueError, match=re.escape(message))


@pytest.mark.parametrize("name", NAMES)
def test_callbacks_of_the_other_keras(name):
    x, y = batch()
    model = compiled(network())
    with raises(
        f"{name}: expected a model of Keras 3, got one of tf_keras; "
        f"use kerasbits.tfmot.callbacks.{name}"
    ):
        model.fit(x, y, verbose=0, callbacks=[getattr(kb.callbacks, name)(*NAMES[name])])
    keras_3 = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    keras_3.compile("sgd", "mse")
    data = keras.ops.zeros((2, 4)), keras.ops.zeros((2, 1))
    with raises(
        f"{name}: expected a model of tf_keras, got one of Keras 3; use kerasbits.callbacks.{name}"
    ):
        callback = getattr(tfmot.callbacks, name)(*NAMES[name])
        keras_3.fit(*data, verbose=0, callbacks=[callback])


def test_models_without_quantizers():
    model = compiled(network())
    for step in (kb.adjust, kb.freeze, lambda m: kb.calibrate(m, batch()[0])):
        with raises(f"expected a model with quantizers, got '{model.name}', which has none"):
            step(model)
    with raises("AdjustBits: expected a model with quantizers"):
        model.fit(*batch(), verbose=0, callbacks=[tfmot.callbacks.AdjustBits()])
    with raises("quantize_model: expected a quantizer for kernels or inputs"):
        tfmot.quantize_model(model)


def test_an_optimizer_of_a_loop():
    import tensorflow as tf

    x, y = batch()
    model, optimizer = tfmot.quantize_model(network(), "bsq"), tf_keras.optimizers.Adam(0.01)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        value = loss(y, model(x, training=True)) + tf.add_n(model.losses)
    variables = model.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))
    scales = [v for v in optimizer.variables if v.name.endswith("/scale:0")]
    assert scales
    assert any(v.numpy().any() for v in scales)
    kb.adjust(model)
    assert any(v.numpy().any() for v in scales)
    kb.adjust(model, optimizer)
    assert not any(v.numpy().any() for v in scales)
