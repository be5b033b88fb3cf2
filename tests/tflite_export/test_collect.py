"""Folding of batch norm, and what is packed."""

import keras
import numpy as np
import pytest
from exportable import PAIRS, SHAPE, frozen, images, lively_batch_norms

import kerasbits as kb
from kerasbits.packed import FloatGrid, Floats
from tflite_export.collect import collect, fold_batch_norm


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_fold_equals_batch_norm(scale, center, with_bias):
    rng = np.random.default_rng(0)
    norm = keras.layers.BatchNormalization(scale=scale, center=center, epsilon=0.01)
    norm.build((None, 6))
    for weight in norm.weights:
        values = rng.normal(size=6)
        weight.assign(np.abs(values) + 0.1 if "variance" in weight.path else values)
    x, bias = rng.normal(size=(5, 6)), rng.normal(size=6) if with_bias else None
    multiplier, shift = fold_batch_norm(None if bias is None else bias.astype(np.float32), norm)
    expected = norm((x if bias is None else x + bias).astype(np.float32), training=False)
    # One float32 rounding of multiplier and shift each, values up to about 10.
    np.testing.assert_allclose(x * multiplier + shift, expected, atol=1e-5)
    if scale:
        assert (multiplier < 0).any()


def chain(*middle, activation=None):
    inputs = keras.Input(SHAPE)
    x = keras.layers.Conv2D(4, 3, activation=activation, name="conv")(inputs)
    for layer in middle:
        x = layer(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="fc")(keras.layers.Flatten()(x)))
    lively_batch_norms(model)
    return frozen(model, *PAIRS["uniform4"])


def test_batch_norm_behind_a_linear_layer_is_folded():
    packed = collect(chain(keras.layers.BatchNormalization(name="norm")))
    assert packed.folded == {"norm"}
    assert packed.layers["conv"].packed.multiplier is not None
    assert packed.layers["fc"].packed.multiplier is None


@pytest.mark.parametrize(
    ("middle", "activation"),
    [
        ([keras.layers.ReLU, keras.layers.BatchNormalization], None),
        ([keras.layers.BatchNormalization], "relu"),
        ([lambda: keras.layers.BatchNormalization(axis=1)], None),
    ],
)
def test_other_batch_norms_are_not(middle, activation):
    assert collect(chain(*(make() for make in middle), activation=activation)).folded == frozenset()


def test_batch_norm_is_not_folded_where_the_sum_is_used_again():
    inputs = keras.Input(SHAPE)
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    y = keras.layers.BatchNormalization(name="norm")(x)
    model = keras.Model(inputs, x + y)
    assert collect(frozen(model, *PAIRS["uniform4"])).folded == frozenset()


def test_parts_without_quantizer_stay_float():
    packed = collect(frozen(network_of_one(), kb.Uniform(4), None)).layers["fc"].packed
    assert packed.grid == FloatGrid()
    weight = collect(frozen(network_of_one(), None, kb.Uniform(4))).layers["fc"].packed.weight
    assert isinstance(weight.encoding, Floats)


def network_of_one():
    return keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(3, name="fc")]
    )


def test_channels_first_is_refused():
    inputs = keras.Input((3, 9, 9))
    conv = keras.layers.Conv2D(4, 3, data_format="channels_first", name="conv")
    q = kb.quantize_model(keras.Model(inputs, conv(inputs)), kb.Uniform(4))
    with pytest.raises(ValueError, match="layer 'conv': expected channels_last"):
        collect(q)


def test_nan_that_came_with_training_is_refused():
    q = frozen(network_of_one(), kb.Uniform(4), kb.Uniform(4), images(4))
    q.get_layer("fc").kernel.assign(np.full((243, 3), np.nan))
    with pytest.raises(ValueError, match="fc"):
        collect(q)
