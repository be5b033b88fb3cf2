"""The quantized embedding: rows are channels, ids are not quantized, nothing is multiplied."""

import keras
import numpy as np
import pytest
from keras import layers
from tiny import METHODS, compiled, predict

import kerasbits as kb
from kerasbits import sites
from kerasbits.layers import QuantDense, QuantEmbedding
from kerasbits.quantizers import BayesianBits, BitPruning, Uniform

IDS = np.random.default_rng(0).integers(0, 9, (16, 5)).astype(np.int32)
LABELS = IDS.sum(axis=1) % 3


def words(quantizer=None, **kwargs):
    return QuantEmbedding(9, 4, kernel_quantizer=quantizer, name="words", **kwargs)


def classifier(kernel, inputs=None, masked=False):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            words(kernel, mask_zero=masked),
            layers.GlobalAveragePooling1D(name="pool"),
            QuantDense(3, kernel_quantizer=kernel, input_quantizer=inputs, name="fc"),
        ]
    )


def test_rows_are_channels():
    layer = words(Uniform(3, "channel"))
    layer.build()
    table = np.array(layer.embeddings)
    step = np.abs(table).max(axis=1, keepdims=True) / 3
    np.testing.assert_allclose(
        layer.quantized_kernel(), np.rint(table / step) * step, rtol=0, atol=1e-6
    )
    np.testing.assert_array_equal(predict(layer, IDS), layer.quantized_kernel()[IDS])
    assert layer.exported_kernel().encoding.scale.shape == (9,)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32"])
def test_ids_of_any_type(dtype):
    layer = words(Uniform(3))
    np.testing.assert_array_equal(predict(layer, IDS.astype(dtype)), layer.quantized_kernel()[IDS])


def test_an_input_quantizer_is_an_error():
    with pytest.raises(ValueError, match=r"layer 'words': expected no input_quantizer.*Uniform"):
        words(input_quantizer=Uniform(8))


def test_quantize_model_ignores_inputs():
    model = keras.Sequential(
        [keras.Input((5,), dtype="int32"), layers.Embedding(9, 4, name="words"),
         layers.Flatten(), layers.Dense(3, name="fc")]
    )  # fmt: skip
    q = kb.quantize_model(model, kernel="bitpruning", inputs="uniform", strict=True)
    assert type(q.get_layer("words")) is QuantEmbedding
    assert [(p.path, p.role) for p in sites.places(q)] == [
        ("words", "kernel"), ("fc", "kernel"), ("fc", "input"),
    ]  # fmt: skip
    np.testing.assert_array_equal(
        q.get_layer("words").embeddings, model.get_layer("words").embeddings
    )
    inputs_only = kb.quantize_model(model, inputs="uniform")
    assert type(inputs_only.get_layer("words")) is layers.Embedding
    with pytest.raises(ValueError, match=r"rule 'words': expected to match a layer that can be"):
        kb.quantize_model(model, kernel="bsq", rules={"words": kb.Rule(inputs="uniform")})


def test_mask_zero():
    ids = np.int32([[1, 2, 0], [3, 0, 0]])
    layer = words(Uniform(3), mask_zero=True)
    np.testing.assert_array_equal(layer.compute_mask(ids), ids != 0)
    pooled = predict(keras.Sequential([layer, layers.GlobalAveragePooling1D()]), ids)
    table = layer.quantized_kernel()
    np.testing.assert_allclose(pooled, [table[1:3].mean(axis=0), table[3]], rtol=0, atol=1e-6)
    assert words().compute_mask(ids) is None


def test_first_weights_are_given():
    table = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    for given in (table, [table]):
        layer = words(Uniform(8), weights=given)
        np.testing.assert_array_equal(layer.embeddings, table)
        assert np.abs(layer.quantized_kernel() - table).max() < np.abs(table).max() / 250


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_and_freezes(name, tmp_path):
    model = compiled(classifier(METHODS[name], masked=True))
    kb.set_shares(model)
    history = model.fit(IDS, LABELS, verbose=0, callbacks=[kb.callbacks.LogBits()]).history
    assert np.isfinite(history["loss"]).all()
    assert "bits/words" in history
    kb.adjust(model)
    kb.freeze(model)
    layer = model.get_layer("words")
    packed = layer.packed_kernel()
    assert packed.bits.shape == (9,)
    np.testing.assert_array_equal(predict(layer, IDS), packed.decode()[IDS])
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(predict(again, IDS), predict(model, IDS))
    row = kb.report(model).rows[0]
    assert (row.name, row.macs, row.bops, row.weights) == ("words", 0, 0, 36)


@pytest.mark.parametrize(
    "method",
    [BitPruning(cost="macs"), BayesianBits(cost="bops"), BayesianBits(cost="const")],
    ids=lambda method: method.cost,
)
def test_costs_that_count_multiplications(method):
    """A layer that has none has no share, unless it is alone; nothing is NaN."""
    model = compiled(classifier(method))
    kb.set_shares(model)
    shares = {"words": 1 if method.cost == "const" else 0, "fc": 1}
    assert {p.path: p.host.site.share for p in sites.places(model)} == shares
    predict(model, IDS)
    loss = float(model.get_layer("words").kernel_host.losses[0])
    # Bayesian Bits counts the first term, which is always on, as 1.
    assert (loss > 1.1 * method.strength) == (method.cost == "const")
    alone = keras.Sequential([keras.Input((5,), dtype="int32"), words(method), layers.Flatten()])
    kb.set_shares(alone)
    assert [p.host.site.share for p in sites.places(alone)] == [1]
    for one in (model, alone):
        assert np.isfinite(predict(one, IDS)).all()
        assert all(np.isfinite(float(loss)) for loss in one.losses)
    assert np.isfinite(model.fit(IDS, LABELS, verbose=0).history["loss"]).all()
    kb.freeze(alone)
    report = kb.report(alone)
    assert (report.bops, report.rows[0].macs) == (0, 0)
    assert np.isfinite(report.average_bits)
