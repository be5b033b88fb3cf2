"""Stock files of every geometry, in floats, against Keras."""

import keras
import numpy as np
import pytest
from stock_files_running import (
    RESOLVERS,
    Runner,
    operators,
    relative_errors,
    tied_samples,
    written,
)

import kerasbits as kb
from kerasbits import layers as quantized

UNIFORM = (kb.Uniform(4, granularity="channel"), kb.Uniform(8))
NO_ZERO = (kb.BitPruning(bits=3.0), kb.BitPruning(bits=4.0))


def transposed(kernel, strides, padding, **kwargs):
    arguments = {"strides": strides, "padding": padding, "activation": "relu", **kwargs}
    return (7, 6, 8), lambda q: quantized.QuantConv2DTranspose(16, kernel, **arguments, **q)


LAYERS = {
    "grouped": (
        (9, 9, 16),
        lambda q: quantized.QuantConv2D(32, 3, groups=4, padding="same", **q),
    ),
    "dilated": (
        (9, 9, 8),
        lambda q: quantized.QuantConv2D(16, 3, dilation_rate=2, padding="same", **q),
    ),
    "depthwise": (
        (9, 9, 16),
        lambda q: quantized.QuantDepthwiseConv2D(3, 2, "same", depth_multiplier=2, **q),
    ),
    "depthwise_dilated": (
        (9, 9, 32),
        lambda q: quantized.QuantDepthwiseConv2D(3, dilation_rate=2, activation="relu6", **q),
    ),
    "causal": (
        (20, 8),
        lambda q: quantized.QuantConv1D(32, 3, padding="causal", dilation_rate=2, **q),
    ),
    "transposed_same": transposed(4, 2, "same"),
    "transposed_same_odd": transposed(3, 2, "same"),
    "transposed_valid": transposed(3, 2, "valid"),
    "transposed_with_gaps": transposed(2, 3, "valid"),
    "transposed_cut": transposed(3, 2, "same", output_padding=1),
    "transposed_wide": transposed(5, 3, "same"),
    "transposed_longer": transposed(3, 2, "valid", output_padding=1),
    "transposed_dilated": transposed(3, 1, "same", dilation_rate=2),
    "transposed_line": (
        (7, 8),
        lambda q: quantized.QuantConv1DTranspose(16, 3, strides=2, padding="same", **q),
    ),
    "dense_of_rank_3": (
        (5, 16),
        lambda q: quantized.QuantDense(32, activation="relu", **q),
    ),
    "separable": (
        (9, 9, 16),
        lambda q: quantized.QuantSeparableConv2D(32, 3, padding="same", **q),
    ),
    "einsum": (
        (5, 16),
        lambda q: quantized.QuantEinsumDense("abc,cd->abd", output_shape=(None, 32), **q),
    ),
}


def model_of(name, kernel, inputs):
    """A model of one layer, calibrated and frozen, and data for it."""
    shape, make = LAYERS[name]
    keras.utils.set_random_seed(0)
    layer = make({"kernel_quantizer": kernel, "input_quantizer": inputs, "name": "layer"})
    ends = keras.Input(shape)
    model = keras.Model(ends, layer(ends))
    data = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    kb.calibrate(model, data)
    kb.freeze(model)
    return model, data


@pytest.mark.parametrize("pair", [UNIFORM, NO_ZERO], ids=["uniform", "no_zero"])
@pytest.mark.parametrize("name", LAYERS)
def test_layer_gives_what_keras_gives(name, pair):
    model, data = model_of(name, *pair)
    stock = written(model)
    expected = model.predict(data, verbose=0)
    for resolver in (RESOLVERS.AUTO, RESOLVERS.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
        runner = Runner(stock.data, resolver)
        found = runner(data)[0]
        tied = tied_samples(model, stock, runner, [data])
        assert found.shape == expected.shape
        assert not tied.all()
        assert relative_errors(found, expected)[~tied].max() <= 1e-5
    assert not {"CUSTOM", "BATCH_MATMUL"} & set(operators(stock.data))


@pytest.mark.parametrize(
    ("quantizer", "container", "of_integers"),
    [
        (kb.Uniform(8), "INT8", True),
        (kb.Uniform(8, granularity="channel"), "INT8", True),
        (kb.BSQ(bits=8), "INT16", True),
        (kb.Uniform(4, granularity="channel"), "INT4", False),
        (kb.BitPruning(bits=7.0), "INT8", True),
        (kb.LeastSquaresBinary("ls2"), "INT2", False),
    ],
    ids=str,
)
def test_embeddings(quantizer, container, of_integers):
    keras.utils.set_random_seed(0)
    ids = keras.Input((6,), dtype="int32")
    model = keras.Model(ids, quantized.QuantEmbedding(40, 32, kernel_quantizer=quantizer)(ids))
    kb.freeze(model)
    data = np.random.default_rng(0).integers(0, 40, (3, 6)).astype(np.int32)
    stock = written(model)
    assert [stored.container for stored in stock.stored.values()] == [container]
    found = Runner(stock.data)(data)[0]
    np.testing.assert_allclose(found, model.predict(data, verbose=0), rtol=1e-6, atol=1e-7)
    # Rows of whole bytes are looked up before they become floats.
    order = [name for name in operators(stock.data) if name in ("GATHER", "DEQUANTIZE")]
    assert (order[0] == "GATHER") == of_integers
