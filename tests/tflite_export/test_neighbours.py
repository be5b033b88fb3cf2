"""Models whose layers have neighbours that the converter would merge, and other unusual ones."""

import keras
import numpy as np
import pytest
from exportable import PAIRS, frozen, images, lively_batch_norms, network

import kerasbits as kb
from tflite_export import Interpreter, export


def dense_on_three_axes():
    return keras.Sequential([keras.Input((4, 6)), keras.layers.Dense(5, activation="relu")])


def constant_sum_and_product():
    inputs = keras.Input((6,))
    x = keras.layers.Dense(4)(inputs) * 2.0 + 1.0
    return keras.Model(inputs, keras.layers.Dense(3)(x) - np.arange(3, dtype=np.float32))


def scaling_in_front():
    layers = [keras.layers.Rescaling(0.1, -0.5), keras.layers.Conv2D(3, 3)]
    return keras.Sequential([keras.Input((8, 8, 2)), *layers])


def batch_norm_in_front():
    layers = keras.layers
    middle = [layers.BatchNormalization(), layers.Dense(4, "relu"), layers.BatchNormalization()]
    return keras.Sequential([keras.Input((6,)), *middle, layers.Dense(3)])


def padding_in_front():
    layers = [keras.layers.ZeroPadding2D(1), keras.layers.Conv2D(3, 3)]
    return keras.Sequential([keras.Input((8, 8, 2)), *layers])


def shared_with_two_activations():
    inputs, shared = keras.Input((6,)), keras.layers.Dense(6)
    return keras.Model(inputs, keras.layers.ReLU()(shared(inputs)) + shared(inputs * 2.0))


def composite_activation():
    inputs = keras.Input((6,))
    return keras.Model(inputs, keras.layers.Dense(4, activation="hard_sigmoid")(inputs))


def augmentation():
    layers = [keras.layers.RandomFlip(), keras.layers.Conv2D(3, 3), keras.layers.Dropout(0.5)]
    return keras.Sequential([keras.Input((8, 8, 2)), *layers])


def fixed_batch():
    layers = [keras.layers.Conv2D(3, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
    return keras.Sequential([keras.Input(batch_shape=(4, 8, 8, 2)), *layers])


def barriers_of_its_own():
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5)(keras.ops.cos(inputs))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.ops.cos(x)))


def keyword_as_input_name():
    inputs = keras.Input((6,), name="class")
    return keras.Model(inputs, keras.layers.Dense(3)(inputs))


NEIGHBOURS = (
    dense_on_three_axes,
    constant_sum_and_product,
    scaling_in_front,
    batch_norm_in_front,
    padding_in_front,
    shared_with_two_activations,
    composite_activation,
    augmentation,
    fixed_batch,
    barriers_of_its_own,
    keyword_as_input_name,
)


@pytest.mark.parametrize("build", NEIGHBOURS)
@pytest.mark.parametrize("inputs", [kb.Uniform(6), kb.BitPruning(bits=3.0)], ids=str)
def test_neighbours_that_a_converter_likes_to_merge(build, inputs, tmp_path):
    keras.utils.set_random_seed(0)
    model = build()
    lively_batch_norms(model)
    data = images(8, tuple(model.inputs[0].shape[1:]))
    q = frozen(model, kb.Uniform(4), inputs, data)
    result = export(q, tmp_path / "m.tflite", sample=data)
    assert result.verification.clean_samples > 0
    assert result.max_error <= 1e-4
    assert result.weight_bytes == kb.report(q).weight_bytes
    found, expected = Interpreter(result.path).predict(data), q.predict(data, verbose=0)
    error = np.abs(found - expected).reshape(8, -1).max(axis=1) / np.abs(expected).max()
    assert np.median(error) <= 1e-4


def test_mixed_precision_is_exported_in_float32(tmp_path):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = network()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    q = frozen(model, *PAIRS["uniform4"])
    result = export(q, tmp_path / "m.tflite", sample=images())
    found, expected = Interpreter(result.path).predict(images()), q.predict(images(), verbose=0)
    np.testing.assert_allclose(found, expected, atol=0.05)  # the model computes in float16
    assert q.get_layer("first").compute_dtype == "float16"


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_whole_number_inputs(tmp_path, dtype):
    inputs = keras.Input((6,), dtype=dtype)
    model = keras.Model(inputs, keras.layers.Dense(3, name="fc")(inputs))
    data = np.random.default_rng(0).integers(0, 9, (8, 6)).astype(dtype)
    q = frozen(model, kb.Uniform(4), kb.Uniform(3), data)
    expected = q.get_layer("fc").input_grid()
    values = expected.values(expected.codes(data)) @ q.get_layer("fc").quantized_kernel()
    np.testing.assert_allclose(q.predict(data, verbose=0), values, rtol=1e-5, atol=1e-5)
    result = export(q, tmp_path / "m.tflite", sample=data)
    np.testing.assert_allclose(Interpreter(result.path).predict(data), values, rtol=1e-5, atol=1e-5)


def test_quantized_layers_in_wrappers_are_refused_by_name(tmp_path):
    inner = kb.layers.QuantDense(3, kernel_quantizer=kb.Uniform(4), name="inner")
    layers = [keras.layers.TimeDistributed(inner, name="each"), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((4, 6)), *layers])
    with pytest.raises(ValueError, match=r"layer 'each/inner': expected .* inside a wrapper"):
        export(model, tmp_path / "m.tflite")


def test_file_has_the_permissions_of_any_new_file(tmp_path):
    q = frozen(network(), *PAIRS["uniform4"])
    (tmp_path / "other").touch()
    result = export(q, tmp_path / "m.tflite", verify=False)
    assert result.path.stat().st_mode == (tmp_path / "other").stat().st_mode
