"""Annotate and apply: tfmot's own functions with our scheme, and ours."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from tf_keras_models import SHAPE, batch, network, outputs, same_weights

import kerasbits as kb
from kerasbits import sites
from kerasbits.tfmot import (
    KerasbitsQuantizeConfig,
    KerasbitsQuantizeScheme,
    KerasbitsQuantizeWrapper,
    quantize_annotate_layer,
    quantize_annotate_model,
    quantize_apply,
    quantize_model,
    quantize_scope,
)
from kerasbits.tfmot.cloning import cloned

Q = tfmot.quantization.keras
CONFIG = KerasbitsQuantizeConfig("bitpruning", "uniform", rate=2.0)
NAMES = ["image", "conv", "norm", "sep", "flat", "last"]


def nested():
    """A block used twice, joined by functions of TensorFlow, with a layer of two inputs behind."""
    layers = tf_keras.layers
    block = tf_keras.Sequential(
        [layers.Input((6, 6, 4)), layers.DepthwiseConv2D(3, padding="same", name="deep")],
        name="block",
    )
    inputs = layers.Input(SHAPE)
    x = layers.Conv2D(4, 1, name="first")(inputs)
    y = tf.nn.relu(block(x)) + block(x)
    z = layers.Concatenate(name="both")([x, y[:, :, :, :2]])
    return tf_keras.Model(inputs, [layers.Dense(3, name="last")(z), y], name="nested")


@pytest.mark.parametrize("own", [True, False])
def test_annotated_layers_are_wrapped_and_nothing_else(own):
    annotate = quantize_annotate_layer if own else Q.quantize_annotate_layer
    plain = network(lambda layer: annotate(layer, CONFIG))
    with quantize_scope():
        scheme = KerasbitsQuantizeScheme()
        model = quantize_apply(plain, scheme) if own else Q.quantize_apply(plain, scheme)
    assert [layer.name for layer in model.layers] == NAMES
    assert all(type(model.get_layer(n)) is KerasbitsQuantizeWrapper for n in ("conv", "sep"))
    assert type(model.get_layer("norm")) is tf_keras.layers.BatchNormalization
    assert {p.host.rate for p in sites.places(model)} == {2.0}
    direct = quantize_model(tf_keras_copy(plain), "bitpruning", "uniform", rate=2.0)
    x = batch()[0]
    np.testing.assert_array_equal(outputs(model, x), outputs(direct, x))


def tf_keras_copy(annotated):
    """The float network with the weights of an annotated one."""
    copy = network()
    copy.set_weights(annotated.get_weights())
    return copy


def test_weights_of_a_trained_model_are_kept_and_it_is_left_alone():
    plain = network()
    before = [w.numpy() for w in plain.weights]
    q = quantize_model(plain, "uniform", "uniform")
    a = quantize_apply(quantize_annotate_model(plain, "uniform", "uniform"))
    for model in (q, a):
        for name in NAMES:
            layer = model.get_layer(name)
            inner = layer.layer if isinstance(layer, KerasbitsQuantizeWrapper) else layer
            expected = plain.get_layer(name).get_weights()
            for one, two in zip(inner.get_weights(), expected, strict=True):
                np.testing.assert_array_equal(one, two)
    assert same_weights(q, a)
    for w, value in zip(plain.weights, before, strict=True):
        np.testing.assert_array_equal(w.numpy(), value)
    # The ranges start from the kernels that were copied, not from those of new layers.
    host = q.get_layer("conv").hosts["kernel"]
    untouched = host.state()
    host.reset()
    assert {n: float(v) for n, v in untouched.items()} == {
        n: float(v) for n, v in host.state().items()
    }


def test_a_scheme_quantizes_what_is_annotated_without_a_configuration():
    annotated = Q.quantize_annotate_model(network())
    model = Q.quantize_apply(annotated, KerasbitsQuantizeScheme("apot", "uniform"))
    assert [layer.name for layer in model.layers] == NAMES
    assert {row.method for row in kb.report(model).rows} == {"APoT"}
    own = quantize_apply(annotated, KerasbitsQuantizeScheme("apot", "uniform"))
    assert kb.report(own) == kb.report(model)
    for apply in (Q.quantize_apply, quantize_apply):
        with pytest.raises(ValueError, match=r"layer 'conv': .* annotated without one"):
            apply(annotated, KerasbitsQuantizeScheme())


class EightBit(Q.QuantizeConfig):
    """A configuration as people write them for tfmot."""

    def get_weights_and_quantizers(self, layer):
        quantizer = Q.quantizers.LastValueQuantizer(8, True, True, False)
        return [(layer.kernel, quantizer)]

    def get_activations_and_quantizers(self, layer):
        return []

    def set_quantize_weights(self, layer, quantize_weights):
        layer.kernel = quantize_weights[0]

    def set_quantize_activations(self, layer, quantize_activations):
        pass

    def get_output_quantizers(self, layer):
        return []

    def get_config(self):
        return {}


def test_configurations_of_others_may_stand_beside_ours():
    config = {"conv": CONFIG, "sep": CONFIG, "last": EightBit()}
    annotated = network(lambda layer: Q.quantize_annotate_layer(layer, config[layer.name]))
    with quantize_scope({"EightBit": EightBit}):
        model = Q.quantize_apply(annotated, KerasbitsQuantizeScheme())
    assert type(model.layers[-1]) is Q.QuantizeWrapperV2
    assert type(model.get_layer("conv")) is KerasbitsQuantizeWrapper


def test_the_default_scheme_of_tfmot_is_refused():
    annotated = network(lambda layer: Q.quantize_annotate_layer(layer, CONFIG))
    with pytest.raises(ValueError, match=r"layer 'conv'.*scheme=kerasbits\.tfmot\.KerasbitsQuant"):
        Q.quantize_apply(annotated)


def test_nested_models_shared_layers_and_functions():
    plain, x = nested(), batch()[0]
    rules = {"^block/deep$": kb.Rule("apot"), "last": None}
    model = quantize_model(plain, "bitpruning", "uniform", rules=rules)
    rows = {row.name: row for row in kb.report(model).rows}
    assert [(n, r.method, r.input_method) for n, r in rows.items()] == [
        ("first", "BitPruning", "Uniform"), ("block/deep", "APoT", "float"),
        ("last", "float", "float"),
    ]  # fmt: skip
    assert len([layer for layer in model.layers if layer.name == "block"]) == 1
    kept = cloned(plain, lambda layer: None)
    for one, two in zip(kept(x), plain(x), strict=True):
        np.testing.assert_array_equal(one, two)
    own = quantize_apply(quantize_annotate_model(plain, "bitpruning", "uniform", rules=rules))
    kb.calibrate(own, x)
    kb.calibrate(model, x)
    for one, two in zip(own(x), model(x), strict=True):
        np.testing.assert_array_equal(one, two)


def test_what_is_left_of_a_model_is_quantized():
    first = quantize_model(network(), "bitpruning", rules={"last": None})
    x = batch()[0]
    with pytest.raises(ValueError, match="layer 'conv': expected a float layer, got Kerasbits"):
        quantize_model(first, "apot")
    again = quantize_model(first, rules={"last": kb.Rule("apot")})
    assert [row.method for row in kb.report(again).rows] == ["BitPruning"] * 3 + ["APoT"]
    np.testing.assert_array_equal(
        again.get_layer("sep")(again.get_layer("conv")(x)),
        first.get_layer("sep")(first.get_layer("conv")(x)),
    )


def test_a_sequential_model_that_begins_with_an_annotated_layer():
    layer = tf_keras.layers.Dense(3, input_shape=(4,), name="fc")
    model = quantize_apply(tf_keras.Sequential([quantize_annotate_layer(layer, CONFIG)]))
    assert isinstance(model, tf_keras.Sequential)
    assert model.output_shape == (None, 3)
    assert [row.name for row in kb.report(model).rows] == ["fc"]


def test_shares_are_set():
    model = quantize_model(network(), "bsq")  # part of the weights of all its sites
    found = [p.host.site.share for p in sites.places(model)]
    assert found == pytest.approx([n / 316 for n in (72, 36, 16, 192)])
