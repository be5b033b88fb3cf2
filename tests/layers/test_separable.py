"""Separable convolutions: two quantized parts that make the plain layer."""

import keras
import numpy as np
import pytest
from geometries import exported_output
from keras import layers, ops
from tiny import batch, compiled, predict

import kerasbits as kb
from kerasbits import sites
from kerasbits.layers import QuantSeparableConv1D, QuantSeparableConv2D
from kerasbits.packed import FloatGrid
from kerasbits.quantizers import Uniform

EVERYTHING = {
    "depth_multiplier": 2,
    "strides": 2,
    "padding": "same",
    "activation": "relu",
    "depthwise_initializer": "he_normal",
    "pointwise_initializer": keras.initializers.RandomNormal(stddev=0.3),
    "bias_initializer": "random_normal",
    "depthwise_regularizer": "l2",
    "pointwise_regularizer": "l1",
    "bias_regularizer": "l2",
    "depthwise_constraint": keras.constraints.MaxNorm(0.4, axis=0),
    "pointwise_constraint": keras.constraints.MaxNorm(0.3, axis=[0, 1]),
    "bias_constraint": "non_neg",
}
CASES = [
    (QuantSeparableConv2D, layers.SeparableConv2D, (7, 6, 3), {}),
    (QuantSeparableConv2D, layers.SeparableConv2D, (7, 6, 3), EVERYTHING),
    (QuantSeparableConv2D, layers.SeparableConv2D, (7, 6, 3),
     {"dilation_rate": 2, "use_bias": False, "activation": "softmax"}),
    (QuantSeparableConv1D, layers.SeparableConv1D, (9, 3), {"dilation_rate": 2}),
    (QuantSeparableConv1D, layers.SeparableConv1D, (9, 3),
     {**EVERYTHING, "pointwise_constraint": None, "depthwise_constraint": None}),
]  # fmt: skip
every_case = pytest.mark.parametrize(("quant", "plain", "shape", "arguments"), CASES)


def steps(values, bits):
    """Symmetric uniform levels up to the largest magnitude, the definition of `Uniform`."""
    step = np.abs(values).max() / (2 ** (bits - 1) - 1)
    return (np.rint(values / step) * step).astype(np.float32)


@every_case
def test_without_quantizers_it_is_the_plain_layer(quant, plain, shape, arguments):
    x, outputs, built = batch(shape)[0], [], []
    for cls in (plain, quant):
        keras.utils.set_random_seed(3)
        built.append(cls(4, 3, **arguments, name="sep"))
        outputs.append(predict(built[-1], x))
    np.testing.assert_array_equal(*outputs)
    config = built[1].get_config()
    assert config.pop("kernel_quantizer") is None
    assert config.pop("input_quantizer") is None
    assert config.pop("quantizer_rate") == 1.0
    assert config == built[0].get_config()
    for ours, theirs in zip(built[1].weights, built[0].weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(sum(built[1].losses, 0.0), sum(built[0].losses, 0.0), rtol=1e-6)
    assert built[1].compute_output_shape((None, *shape)) == (None, *outputs[0].shape[1:])
    assert not list(sites.places(keras.Sequential([built[1]])))
    np.testing.assert_array_equal(predict(built[1].as_functional(), x), outputs[0])


@every_case
def test_training_without_quantizers_is_that_of_the_plain_layer(quant, plain, shape, arguments):
    """Regularizers and constraints reach the same weights."""
    x, after = batch(shape)[0], []
    for cls in (plain, quant):
        keras.utils.set_random_seed(3)
        layer = cls(4, 3, **arguments, name="sep")
        model = keras.Sequential([keras.Input(shape), layer])
        model.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=True, jit_compile=False)
        model.fit(x, np.ones((len(x), *model.output_shape[1:])), verbose=0, shuffle=False)
        after.append(layer.get_weights())
    for one, other in zip(*after, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@every_case
def test_both_kernels_and_both_inputs_are_quantized(quant, plain, shape, arguments):
    x, _ = batch(shape)
    keras.utils.set_random_seed(3)
    layer = quant(4, 3, **arguments, kernel_quantizer=Uniform(3), input_quantizer=Uniform(4))
    layer(x, training=True)  # the first batch sets both ranges
    depthwise, pointwise = (
        steps(np.array(k), 3) for k in (layer.depthwise_kernel, layer.pointwise_kernel)
    )
    for ours, by_hand in zip(layer.quantized_kernel(), (depthwise, pointwise), strict=True):
        np.testing.assert_allclose(ours, by_hand, rtol=0, atol=1e-6)
    between = ops.depthwise_conv(
        steps(x, 4), depthwise, layer.strides, layer.padding, dilation_rate=layer.dilation_rate
    )
    want = ops.conv(steps(np.array(between), 4), pointwise, padding="valid")
    want = want if layer.bias is None else want + layer.bias
    want = np.array(layer.activation(want))
    # A value between two codes may fall on either side: then by a step, in few places.
    close = np.isclose(predict(layer, x), want, rtol=0, atol=1e-4)
    assert close.mean() > 0.98
    assert layer.depthwise.input_grid() != layer.pointwise.input_grid()


def test_the_parts_export_the_layer():
    x, _ = batch((7, 6, 3))
    layer = QuantSeparableConv2D(
        4, 3, **{**EVERYTHING, "activation": None}, kernel_quantizer=Uniform(3, "channel")
    )
    want = predict(layer, x)
    model = layer.as_functional()
    assert [part.name for part in model.layers[1:]] == ["depthwise", "pointwise"]
    assert list(map(id, model.layers[1:])) == list(map(id, layer.parts()))
    y = x
    for part in layer.parts():
        y = exported_output(part, y)
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-5)
    for codes, weights, packed in zip(
        layer.integer_kernel(), (layer.depthwise_kernel, layer.pointwise_kernel),
        layer.packed_kernel(), strict=True,
    ):  # fmt: skip
        assert codes.shape == weights.shape
        np.testing.assert_array_equal(codes.ravel(), packed.codes.ravel())


def test_sites_and_report():
    quantizers = {"kernel_quantizer": Uniform(3), "input_quantizer": Uniform(4)}
    layer = QuantSeparableConv2D(4, 3, depth_multiplier=2, **quantizers, name="sep")
    model = keras.Sequential([keras.Input((7, 6, 3)), layer], name="m")
    found = [(p.path, p.role, p.host.site.name, p.host.site.macs) for p in sites.places(model)]
    assert found == [
        ("sep/depthwise", "kernel", "sep/depthwise", 20 * 54),
        ("sep/depthwise", "input", "sep/depthwise", 20 * 54),
        ("sep/pointwise", "kernel", "sep/pointwise", 20 * 24),
        ("sep/pointwise", "input", "sep/pointwise", 20 * 24),
    ]
    assert [p.host.site.prunable for p in sites.places(model, "kernel")] == [False, True]
    rows = kb.report(model).rows
    assert [(row.name, row.layer) for row in rows] == [
        ("sep/depthwise", "QuantDepthwiseConv2D"), ("sep/pointwise", "QuantConv2D"),
    ]  # fmt: skip
    assert [row.shape for row in rows] == [(3, 3, 3, 2), (1, 1, 6, 4)]
    assert kb.report(model).bops == 12 * (20 * 54 + 20 * 24)
    with pytest.raises(ValueError, match=r"layer 'sep/depthwise', input.*calibrate"):
        layer.depthwise.input_grid()


@every_case
def test_saved_in_mid_training(quant, plain, shape, arguments, tmp_path):
    x, _ = batch(shape)
    layer = quant(
        4, 3, **arguments, kernel_quantizer="bitpruning", input_quantizer="bitpruning", name="sep"
    )  # fmt: skip
    head = [keras.layers.Flatten(), keras.layers.Dense(3)]
    model = compiled(keras.Sequential([keras.Input(shape), layer, *head]))
    kb.set_shares(model)
    before = layer.get_weights()
    model.fit(*batch(shape), verbose=0)
    assert all(
        np.any(b != a) for b, a in zip(before, layer.get_weights(), strict=True) if b.ndim > 1
    )
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(predict(again, x), predict(model, x))
    assert again.get_layer("sep").get_config() == layer.get_config()
    for part, loaded in zip(layer.parts(), again.get_layer("sep").parts(), strict=True):
        assert loaded.get_config() == part.get_config()
        assert [h.site for h in loaded.hosts.values()] == [h.site for h in part.hosts.values()]


def test_untrainable_parts():
    layer = QuantSeparableConv2D(2, 2, kernel_quantizer="bsq", trainable=False)
    layer.build((None, 4, 4, 2))
    assert layer.trainable_variables == []
    layer.trainable = True
    assert not layer.depthwise_kernel.trainable  # BSQ replaces it
    assert len(layer.trainable_variables) == 1 + 2 * 4  # a bias; planes, scale, latent


def test_float_parts_and_functional_errors():
    layer = QuantSeparableConv2D(2, 2, name="sep")
    with pytest.raises(ValueError, match="layer 'sep': expected a built layer"):
        layer.as_functional()
    layer.build((None, 4, 4, 2))
    assert layer.packed_kernel() == layer.integer_kernel() == (None, None)
    assert layer.depthwise.input_grid() == FloatGrid()
    first = QuantSeparableConv2D(2, 2, data_format="channels_first", name="first")
    first.build((None, 2, 4, 4))
    assert first.compute_output_shape((None, 2, 4, 4)) == (None, 2, 3, 3)
    with pytest.raises(ValueError, match="layer 'first/depthwise': expected channels_last"):
        first.depthwise.geometry()
