"""The wrapper around one layer: the same numbers, sites and rows as the Keras 3 layer."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from geometries import CASES
from tf_keras_models import METHODS, batch, inputs_for, network

import kerasbits as kb
from kerasbits import layers as quantized
from kerasbits import sites
from kerasbits.layers import CompositeLayer
from kerasbits.quantizers import NAMES
from kerasbits.tfmot import (
    KerasbitsQuantizeConfig,
    KerasbitsQuantizer,
    KerasbitsQuantizeWrapper,
    quantize_model,
    to_keras3,
)
from kerasbits.tfmot.forms import FORMS

SEPARABLE = [
    ("SeparableConv2D", (7, 8, 3), {"strides": 2, "depth_multiplier": 2, "activation": "relu"}),
    ("SeparableConv2D", (7, 8, 3), {"padding": "same", "dilation_rate": 2, "use_bias": False}),
    ("SeparableConv1D", (9, 3), {"strides": 2, "padding": "same", "activation": "tanh"}),
]
LAYERS = [(case.name, case.shape, case.arguments) for case in CASES]
LAYERS += [(name, shape, {"filters": 4, "kernel_size": 3, **a}) for name, shape, a in SEPARABLE]


def pair(name, shape, arguments, kernel="apot", inputs="uniform"):
    """The same layer and state in both hosts, in a model of each kind; and samples."""
    ids = name == "Embedding"
    inputs = None if ids else inputs
    config = KerasbitsQuantizeConfig(kernel, inputs)
    plain = getattr(tf_keras.layers, name)(**arguments, name="layer")
    source = tf_keras.layers.Input(shape, dtype="int32" if ids else "float32")
    old = tf_keras.Model(source, KerasbitsQuantizeWrapper(plain, config)(source))
    twin = getattr(quantized, f"Quant{name}")(
        **arguments, name="layer", kernel_quantizer=kernel, input_quantizer=inputs
    )
    new = keras.Sequential([keras.Input(shape, dtype="int32" if ids else "float32"), twin])
    rng = np.random.default_rng(1)
    values = [rng.normal(size=w.shape).astype(np.float32) for w in plain.weights]
    plain.set_weights(values)
    old.layers[-1].reset_quantizers()
    parts = twin.parts() if isinstance(twin, CompositeLayer) else (twin,)
    kernels = [p.kernel for p in parts]
    biases = [p.bias for p in parts if p.bias is not None]
    for variable, value in zip([*kernels, *biases], values, strict=True):
        variable.assign(value)
    twin.reset_quantizers()
    x = rng.integers(0, 7, (4, *shape)) if ids else rng.normal(size=(4, *shape)).astype(np.float32)
    for model in (old, new):
        kb.calibrate(model, x)
    return old, new, x


def test_every_form_is_tested():
    assert {name for name, _, _ in LAYERS} == {kind.__name__ for kind in FORMS}


@pytest.mark.parametrize(("name", "shape", "arguments"), LAYERS)
def test_it_computes_what_the_keras_3_layer_does(name, shape, arguments):
    old, new, x = pair(name, shape, arguments)
    expected = keras.ops.convert_to_numpy(new(x))
    np.testing.assert_allclose(old(x).numpy(), expected, rtol=1e-5, atol=1e-5)
    assert old.output_shape == new.output_shape
    assert old.layers[-1].compute_output_shape((None, *shape)) == new.output_shape
    for a, b in zip(sites.places(old), sites.places(new), strict=True):
        assert (a.path, a.role, a.host.site) == (b.path, b.role, b.host.site)
        assert a.host.state().keys() == b.host.state().keys()
        for key, value in a.host.state().items():
            np.testing.assert_allclose(value, b.host.state()[key], rtol=1e-6)
    assert kb.report(old) == kb.report(new)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_computes_what_its_keras_3_host_does(method):
    for name, shape, arguments in (LAYERS[3], LAYERS[-1]):
        old, new, x = pair(name, shape, arguments, method, inputs_for(method))
        expected = keras.ops.convert_to_numpy(new(x))
        np.testing.assert_allclose(old(x).numpy(), expected, rtol=1e-5, atol=1e-5)
        assert kb.report(old) == kb.report(new)
        for model in (old, new):
            kb.freeze(model)
        assert kb.report(old) == kb.report(new)


def test_it_is_a_tfmot_wrapper_named_as_its_layer():
    import tensorflow_model_optimization as tfmot

    q = tfmot.quantization.keras
    wrapper = KerasbitsQuantizeWrapper(
        tf_keras.layers.Dense(3, name="fc"), KerasbitsQuantizeConfig("bitpruning", "uniform")
    )
    assert isinstance(wrapper, q.QuantizeWrapperV2)
    assert isinstance(wrapper.quantize_config, q.QuantizeConfig)
    assert wrapper.name == "fc"
    assert wrapper.hosts == {}
    wrapper.build((None, 4))
    assert set(wrapper.hosts) == {"kernel", "input"}
    assert all(isinstance(h, q.quantizers.Quantizer) for h in wrapper.hosts.values())
    assert all(isinstance(h, KerasbitsQuantizer) for h in wrapper.hosts.values())
    assert not hasattr(wrapper, "layers")


def test_a_separable_convolution_has_two_parts():
    model = quantize_model(network(), "apot", "uniform")
    wrapper = model.get_layer("sep")
    assert not hasattr(wrapper, "hosts")
    assert [part.name for part in wrapper.layers] == ["depthwise", "pointwise"]
    assert wrapper.layers[1].kernel is wrapper.layer.pointwise_kernel
    assert [path for path, _ in sites.walk(model)][3:5] == ["sep/depthwise", "sep/pointwise"]


@pytest.mark.parametrize("eager", [True, False])
def test_a_call_leaves_the_variables_in_their_place(eager):
    model = quantize_model(network(), "bitpruning", "uniform")
    wrapper, x = model.get_layer("conv"), batch()[0]
    kernel, bias, weights = wrapper.layer.kernel, wrapper.layer.bias, list(wrapper.weights)
    call = model if eager else tf.function(model)
    call(x)
    assert wrapper.layer.kernel is kernel
    assert wrapper.layer.bias is bias
    assert [w is v for w, v in zip(wrapper.weights, weights, strict=True)] == [True] * len(weights)


def test_an_error_in_the_layer_leaves_the_variables_in_their_place():
    def fail(x):
        raise RuntimeError("activation")

    wrapper = KerasbitsQuantizeWrapper(
        tf_keras.layers.Dense(3, activation=fail, name="fc"), KerasbitsQuantizeConfig("apot")
    )
    wrapper.build((None, 4))
    with pytest.raises(RuntimeError, match="activation"):
        wrapper(tf.ones((2, 4)))
    assert isinstance(wrapper.layer.kernel, tf.Variable)
    assert isinstance(wrapper.layer.bias, tf.Variable)


def test_a_kernel_that_its_quantizer_replaces_is_not_trained():
    model = quantize_model(network(), "bsq")
    wrapper = model.get_layer("conv")
    names = [w.name for w in wrapper.trainable_weights]
    assert "conv/kernel:0" not in names
    assert "conv/bias:0" in names
    assert any(w is wrapper.layer.kernel for w in wrapper.non_trainable_weights)
    kept = quantize_model(network(), "apot").get_layer("conv")
    assert any(w is kept.layer.kernel for w in kept.trainable_weights)


def test_a_layer_that_is_not_trained():
    model = quantize_model(network(), "bitpruning")
    wrapper = model.get_layer("conv")
    count = len(wrapper.weights)
    wrapper.trainable = False
    assert wrapper.trainable_weights == []
    assert len(wrapper.non_trainable_weights) == count
    wrapper.trainable = True
    assert len(wrapper.trainable_weights) == 3  # kernel, bias, bits


def test_the_loss_counts_once_for_a_shared_layer():
    dense = tf_keras.layers.Dense(4, name="shared")
    source = tf_keras.layers.Input((4,))
    model = quantize_model(tf_keras.Model(source, dense(dense(source))), "bitpruning")
    model(tf.ones((2, 4)))
    assert len(model.losses) == 1
    host = model.get_layer("shared").hosts["kernel"]
    assert float(model.losses[0]) == float(host.penalty()) > 0


def test_regularizers_and_masks_of_the_layer_are_kept():
    source = tf_keras.layers.Input((None,), dtype="int32")
    embedding = tf_keras.layers.Embedding(7, 3, mask_zero=True, name="table")
    l1, l2 = tf_keras.regularizers.L1(1.0), tf_keras.regularizers.L2(0.5)
    dense = tf_keras.layers.Dense(2, kernel_regularizer=l2, activity_regularizer=l1, name="fc")
    lstm = tf_keras.layers.LSTM(3, name="lstm")
    plain = tf_keras.Model(source, dense(lstm(embedding(source))))
    model = quantize_model(plain, "uniform")
    ids = np.array([[1, 2, 0, 0, 0], [3, 0, 0, 0, 0]])
    assert model.get_layer("table").compute_mask(ids).numpy().sum() == 3
    short, long = model(ids[:, :2]), model(ids)
    np.testing.assert_allclose(short, long, rtol=1e-6)  # what is masked changes nothing
    kernel = plain.get_layer("fc").kernel.numpy()
    y = model(ids)
    expected = {0.5 * np.sum(kernel**2), np.abs(y).sum() / 2}
    assert sorted(float(v) for v in model.losses) == pytest.approx(sorted(expected), rel=1e-5)


@pytest.mark.parametrize("name", ["apot", "bitpruning"])
def test_mixed_precision(name):
    tf_keras.utils.set_random_seed(2)
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        mixed = network()
    finally:
        tf_keras.mixed_precision.set_global_policy(before)
    plain = network()
    plain.set_weights(mixed.get_weights())
    x = batch()[0]
    model, exact = (quantize_model(m, name, "uniform") for m in (mixed, plain))
    for m in (model, exact):
        kb.calibrate(m, x)
    assert model.output.dtype == tf.float16
    assert all(w.dtype != tf.float16 for w in model.weights)
    # The quantizer saw the float32 kernel: the codes are those of the exact model.
    for a, b in zip(sites.places(model, "kernel"), sites.places(exact, "kernel"), strict=True):
        one, two = (p.host(p.layer.kernel, False).numpy() for p in (a, b))
        np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(model(x), exact(x), atol=0.05)


def test_training_may_be_a_tensor():
    model = quantize_model(network(), "bayesian_bits", "bayesian_bits")
    x = batch()[0]

    @tf.function
    def call(training):
        return model(x, training=training)

    still = [call(tf.constant(False)).numpy() for _ in range(2)]
    np.testing.assert_array_equal(*still)
    seeds = [w.numpy() for w in model.weights if w.name.endswith("/seed:0")]
    moved = [call(tf.constant(True)).numpy() for _ in range(2)]
    assert np.any(moved[0] != moved[1])
    after = [w.numpy() for w in model.weights if w.name.endswith("/seed:0")]
    assert [b[1] - a[1] for a, b in zip(seeds, after, strict=True)] == [2] * len(seeds)
    assert NAMES["bayesian_bits"].stochastic
    assert len(seeds) == 8


def test_seeds_follow_the_seed_of_tf_keras():
    def seeds():
        tf_keras.utils.set_random_seed(5)
        model = quantize_model(network(), "bayesian_bits")
        return np.stack([w.numpy() for w in model.weights if w.name.endswith("/seed:0")])

    one, two = seeds(), seeds()
    np.testing.assert_array_equal(one, two)
    assert len(set(one[:, 0])) == 4  # each site draws its own numbers


def test_variables_are_stored_divided_by_the_rate():
    for rate in (1.0, 8.0):
        model = quantize_model(network(), kb.BitPruning(bits=6, rate=2.0), rate=rate)
        host = model.get_layer("last").hosts["kernel"]
        stored = next(w for w in model.get_layer("last").weights if "bits" in w.name)
        assert host.state()["bits"] == 6
        assert stored.numpy() * 2.0 * rate == 6


def test_masks_pass_by():
    """To the layers behind that use them: padding changes nothing there."""
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(2)
    source = layers.Input((5,), dtype="int32")
    x = layers.Embedding(7, 4, "glorot_normal", mask_zero=True)(source)
    x = layers.Dense(3, activation="tanh")(x)
    plain = tf_keras.Model(source, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))
    model = quantize_model(plain, kb.Uniform(16), kb.Uniform(16))
    ids = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 1, 0]])
    kb.calibrate(model, ids)
    np.testing.assert_allclose(model(ids), plain(ids), rtol=1e-3, atol=1e-3)
    assert np.abs(plain(np.maximum(ids, 1)) - model(ids)).max() > 0.01
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*destroy the mask")
        twin = to_keras3(model, sample=ids)
    np.testing.assert_allclose(model(ids), keras.ops.convert_to_numpy(twin(ids)), atol=1e-5)
    model.compile("sgd", "mse")
    assert np.isfinite(model.fit(ids, np.ones((2, 2)), verbose=0).history["loss"]).all()


def test_masks_of_layers_that_know_none_end_there():
    layers = tf_keras.layers
    source = layers.Input((5,), dtype="int32")
    x = layers.Embedding(7, 4, mask_zero=True)(source)
    plain = tf_keras.Model(source, layers.Conv1D(3, 2)(x))
    model = quantize_model(plain, kb.Uniform(16))
    ids = np.array([[1, 2, 3, 0, 0]])
    np.testing.assert_allclose(model(ids), plain(ids), atol=1e-3)
    assert getattr(model.output, "_keras_mask", None) is None
