"""What does not fit together says so in one message that names it."""

import keras
import numpy as np
import pytest
import tf_keras
from tf_keras_models import network

import kerasbits as kb
from kerasbits.tfmot import (
    KerasbitsQuantizeConfig,
    KerasbitsQuantizeWrapper,
    quantize_annotate_layer,
    quantize_annotate_model,
    quantize_apply,
    quantize_model,
)

CONFIG = KerasbitsQuantizeConfig("bitpruning")
FUNCTIONS = (quantize_model, quantize_annotate_model, quantize_apply)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_is_no_tf_keras_model(function):
    new = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="theirs")
    with pytest.raises(ValueError, match=r"expected a tf_keras model, got the Keras 3 .*'theirs'"):
        function(new)
    for other in (None, "x", tf_keras.layers.Dense(2)):
        with pytest.raises(ValueError, match="expected a tf_keras model, got"):
            function(other)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_models_that_cannot_be_cloned(function):
    class Mine(tf_keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match=r"expected a Sequential or functional model, got.*Mine"):
        function(Mine())

    class Steps(tf_keras.Model):
        def train_step(self, data):
            return {}

    source = tf_keras.layers.Input((3,))
    with pytest.raises(ValueError, match=r"subclass Steps.*then make Steps\(q.inputs, q.outputs\)"):
        function(Steps(source, tf_keras.layers.Dense(2)(source)))
    with pytest.raises(ValueError, match="expected a built model"):
        function(tf_keras.Sequential([tf_keras.layers.Dense(2)]))
    model = network()
    model.get_layer("last").kernel.assign(np.full((64, 3), np.nan))
    with pytest.raises(ValueError, match=r"layer 'last': expected finite weights.*kernel"):
        function(model)


def test_a_tf_keras_model_given_to_the_functions_for_keras_3():
    with pytest.raises(ValueError, match=r"Keras 3 model, got tf_keras.*kerasbits\.tfmot\.quant"):
        kb.quantize_model(network(), "bitpruning")
    with pytest.raises(ValueError, match=r"layer 'fc': .*got one of tf_keras.*kerasbits\.tfmot"):
        kb.layers.QuantDense(3, name="fc")(tf_keras.layers.Input((4,)))


def test_a_keras_3_layer_given_to_the_functions_for_tf_keras():
    for layer in (keras.layers.Dense(3, name="fc"), kb.layers.QuantDense(3, name="fc")):
        for call in (quantize_annotate_layer, KerasbitsQuantizeWrapper):
            with pytest.raises(ValueError, match="'fc': expected a tf_keras layer, got one of Ker"):
                call(layer, CONFIG)
    wrapper = KerasbitsQuantizeWrapper(tf_keras.layers.Dense(3, name="fc"), CONFIG)
    with pytest.raises(ValueError, match="'fc': expected a tensor of tf_keras, got one of Keras 3"):
        wrapper(keras.Input((4,)))


@pytest.mark.parametrize("call", [quantize_annotate_layer, KerasbitsQuantizeWrapper])
def test_layers_that_cannot_be_quantized(call):
    layers = tf_keras.layers

    class MyDense(layers.Dense):
        pass

    others = (
        layers.LSTM(3, name="it"),
        layers.ReLU(name="it"),
        layers.EinsumDense("ab,bc->ac", 4, name="it"),
        layers.SeparableConv1D(3, 3, padding="causal", name="it"),
        MyDense(3, name="it"),
    )
    for layer in others:
        with pytest.raises(ValueError, match="'it': expected a tf_keras layer that can be quant"):
            call(layer, CONFIG)
    for other in (None, 3, network()):
        with pytest.raises(ValueError, match="expected a tf_keras layer, got"):
            call(other, CONFIG)
    with pytest.raises(ValueError, match="layer 'fc': expected a KerasbitsQuantizeConfig"):
        call(layers.Dense(3, name="fc"), None)


def test_configurations_that_are_wrong():
    cases = {
        "expected a quantizer .* for kernel or inputs": {},
        "got 'nope'": {"kernel": "nope"},
        "expected a quantizer for the input, got BSQ": {"inputs": "bsq"},
        "expected a rate that is a power of two, got 3": {"kernel": "bsq", "rate": 3},
    }
    for message, arguments in cases.items():
        with pytest.raises(ValueError, match=f"KerasbitsQuantizeConfig: .*{message}|{message}"):
            KerasbitsQuantizeConfig(**arguments)


def test_rules_and_strict_are_those_of_the_other_front_end():
    model = network()
    with pytest.raises(ValueError, match=r"match none of"):
        quantize_model(model, "bsq", rules={"nothing": None})
    with pytest.raises(ValueError, match="expected to match a layer that can be quantized"):
        quantize_model(model, "bsq", rules={"norm": kb.Rule("apot")})
    with pytest.raises(ValueError, match="model 'net': expected a rate that is a power of two"):
        quantize_model(model, "bsq", rate=0.3)
    source = tf_keras.layers.Input((4, 3))
    recurrent = tf_keras.layers.LSTM(2, name="lstm")(source)
    recurrent = tf_keras.Model(source, tf_keras.layers.Dense(3)(recurrent))
    with pytest.raises(ValueError, match=r"layer 'lstm.*QuantConv2D"):
        quantize_model(recurrent, "bsq", strict=True)
    assert kb.report(quantize_model(recurrent, "bsq")).rows[0].method == "float"


def test_nothing_annotated_or_another_scheme():
    with pytest.raises(ValueError, match="model 'net': expected layers that are annotated"):
        quantize_apply(network())
    with pytest.raises(ValueError, match="expected a KerasbitsQuantizeScheme"):
        quantize_apply(network(lambda layer: quantize_annotate_layer(layer, CONFIG)), "8 bit")


def test_an_einsum_in_another_model_is_left_float():
    source = tf_keras.layers.Input((4,))
    dense = tf_keras.layers.EinsumDense("ab,bc->ac", 3, name="einsum")(source)
    model = quantize_model(tf_keras.Model(source, tf_keras.layers.Dense(2)(dense)), "bsq")
    assert [row.method for row in kb.report(model).rows] == ["float", "BSQ"]
