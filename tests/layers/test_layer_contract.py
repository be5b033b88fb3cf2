"""One model with every layer, by every method: train, freeze, report, encode."""

import keras
import numpy as np
import pytest
from geometries import ZOO_PATHS, exported_output, zoo, zoo_batch
from tiny import METHODS, compiled, inputs_like, predict

import kerasbits as kb
from kerasbits import sites
from kerasbits.packed import Floats

X, Y = zoo_batch()


def layers_of(model):
    """The quantized layers by path, parts of composite ones included."""
    return {path: layer for path, layer in sites.walk(model) if getattr(layer, "hosts", None)}


@pytest.fixture(scope="module")
def trained():
    """The model of each method: variables before training, logs of it, and the frozen model."""
    found = {}
    for name, method in METHODS.items():
        model = compiled(zoo(method, inputs_like(method)))
        before = {v.path: np.array(v) for v in model.trainable_variables}
        history = model.fit(
            X, Y, verbose=0,
            callbacks=[kb.callbacks.AdjustBits(), kb.callbacks.LogBits()],
        ).history  # fmt: skip
        after = {v.path: np.array(v) for v in model.trainable_variables}
        kb.freeze(model)
        found[name] = model, before, after, history
    return found


@pytest.fixture(params=METHODS)
def one(request, trained):
    return trained[request.param]


def test_every_layer_trains(one):
    model, before, after, history = one
    assert np.isfinite(history["loss"]).all()
    still = {path for path in before if not np.any(before[path] != after[path])}
    # Latent weights of BSQ wait for freezing. Where nothing is multiplied, Bayesian Bits has no
    # cost, and its gates rarely a gradient.
    waiting = {p for p in before if p.endswith("/latent") or p == "words/kernel_quantizer/phi"}
    assert still <= waiting
    assert list(layers_of(model)) == list(ZOO_PATHS)
    for path, layer in layers_of(model).items():
        assert layer.hosts["kernel"].site.name == path
        assert f"bits/{path}" in history


def test_report_and_shares(one):
    model, *_ = one
    report = kb.report(model)
    assert [row.name for row in report.rows] == list(ZOO_PATHS)
    for row, (_, layer) in zip(report.rows, layers_of(model).items(), strict=True):
        assert row.bits == round(row.bits) or row.dropped_channels
        assert row.weights == int(np.prod(layer.kernel.shape))
        assert (row.macs == 0) == (row.name == "words")
    assert np.isfinite(report.bops)
    by_method = {}
    for place in sites.places(model):
        assert np.isfinite(place.host.site.share)
        by_method.setdefault(type(place.quantizer), []).append(place.host.site.share)
    for kind, shares in by_method.items():
        if kind in (kb.BSQ, kb.BitPruning):
            assert sum(shares) == pytest.approx(1)
        if kind is kb.BayesianBits:
            assert max(shares) == 1


def test_codes_are_the_kernel_that_the_call_uses(one, monkeypatch):
    model, *_ = one
    used = {}
    for path, layer in layers_of(model).items():

        def spy(x, kernel, path=path, op=layer._op):
            used[path] = np.array(kernel)
            return op(x, kernel)

        monkeypatch.setattr(layer, "_op", spy)
    predict(model, X)
    assert set(used) == set(ZOO_PATHS)
    for path, layer in layers_of(model).items():
        packed = layer.packed_kernel()
        decoded = packed.decode().reshape(layer.kernel.shape)
        np.testing.assert_allclose(decoded, used[path], rtol=1e-5, atol=1e-6, err_msg=path)
        np.testing.assert_array_equal(layer.quantized_kernel(), decoded, err_msg=path)
        codes = layer.integer_kernel()
        if isinstance(packed.encoding, Floats):
            assert codes.size == 0
            continue
        assert codes.shape == tuple(layer.kernel.shape)
        assert codes.dtype == np.uint16
        by_channel = np.moveaxis(packed.codes, packed.channel_axis, -1)
        assert (by_channel < 2**packed.bits).all(), path


def test_exported_forms_compute_the_layers(one, monkeypatch):
    """Given the quantized input of each layer, its exported form gives what its operation does."""
    model, *_ = one
    seen = {}
    for path, layer in layers_of(model).items():

        def spy(x, kernel, path=path, op=layer._op):
            seen[path] = np.array(x), np.array(op(x, kernel))
            return op(x, kernel)

        monkeypatch.setattr(layer, "_op", spy)
    predict(model, X)
    for path, layer in layers_of(model).items():
        x, want = seen[path]
        bias = layer.exported_bias()
        got = exported_output(layer, x) - (0 if bias is None else bias)
        scale = max(1.0, np.abs(want).max())
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * scale, err_msg=path)


def test_frozen_bits_stay(one):
    model, *_ = one
    before = kb.report(model)
    model.fit(X, Y, verbose=0)
    kb.adjust(model)
    kb.freeze(model)
    after = kb.report(model)
    assert [row.bits for row in after.rows] == [row.bits for row in before.rows]
    assert np.isfinite(predict(model, X)).all()


def test_quantize_model_makes_the_zoo():
    """The plain zoo with all of its layers replaced has the rows of the quantized one."""
    plain = plain_zoo()
    assert {type(layer).__module__.split(".")[0] for layer in plain.layers} == {"keras"}
    q = kb.quantize_model(plain, kernel=kb.Uniform(8), inputs=kb.Uniform(8), strict=True)
    assert [row.name for row in kb.report(q).rows] == list(ZOO_PATHS)
    kb.calibrate(q, X)
    want = predict(plain, X)
    assert np.abs(predict(q, X) - want).max() < 0.1 * np.abs(want).max()
    rules = {"^sep2d$": None, "^heads": kb.Rule("bsq"), "words": None}
    q = kb.quantize_model(plain, kernel="uniform", inputs="uniform", rules=rules)
    rows = {row.name: row for row in kb.report(q).rows}
    assert (rows["sep2d"].layer, rows["sep2d"].method) == ("SeparableConv2D", "float")
    assert (rows["heads/core"].method, rows["heads/core"].input_method) == ("BSQ", "float")
    assert (rows["words"].layer, rows["words"].method) == ("Embedding", "float")
    with pytest.raises(ValueError, match="expected a float layer, got Quant"):
        kb.quantize_model(q, kernel="apot", strict=True)
    with pytest.raises(ValueError, match=r"\['sep2d/depthwise'\] match none"):
        kb.quantize_model(plain, kernel="uniform", rules={"sep2d/depthwise": None})


def plain_zoo():
    model = zoo()

    def plain(layer):
        if isinstance(layer, kb.layers.QuantizedLayer):
            return layer.plain_layer()
        return layer.__class__.from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=plain)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled(jit_compile):
    """In a graph, and with XLA, an epoch gives what it gives eagerly."""
    losses = []
    for settings in ({"run_eagerly": True}, {"run_eagerly": False, "jit_compile": jit_compile}):
        model = compiled(zoo("uniform", "uniform"), keras.optimizers.SGD(0.01), **settings)
        history = model.fit(X, Y, epochs=2, batch_size=8, shuffle=False, verbose=0)
        losses.append(history.history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    assert losses[0][1] != losses[0][0]


class Subclassed(keras.Model):
    """Keras traces it before any weight exists."""

    def __init__(self, method):
        super().__init__(name="mine")
        both = {"kernel_quantizer": method, "input_quantizer": inputs_like(method)}
        self.words = kb.layers.QuantEmbedding(9, 4, kernel_quantizer=method)
        self.heads = kb.layers.QuantEinsumDense("abc,cde->abde", (None, 2, 3), **both)
        self.join = kb.layers.QuantEinsumDense("abcd,cde->abe", (None, 4), **both)
        self.sep = kb.layers.QuantSeparableConv1D(3, 2, **both)

    def call(self, ids):
        return keras.ops.mean(self.sep(self.join(self.heads(self.words(ids)))), axis=1)


def test_built_inside_fit():
    model = compiled(Subclassed(METHODS["uniform"]), keras.optimizers.SGD(0.0), run_eagerly=False)
    assert np.isfinite(model.fit(X[1], Y, verbose=0).history["loss"]).all()
    paths = list(layers_of(model))
    assert [path.partition("/")[2] for path in paths][1:] == [
        "core",
        "core",
        "depthwise",
        "pointwise",
    ]
    for path, layer in layers_of(model).items():
        kernel = np.array(layer.kernel)
        assert np.abs(layer.quantized_kernel() - kernel).max() < np.abs(kernel).max() / 100, path


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(zoo("uniform", "uniform"))
        before = predict(model, X)
        assert before.dtype == np.float16
        assert np.isfinite(model.fit(X, Y, verbose=0).history["loss"]).all()
        assert np.any(predict(model, X) != before)
        for path, layer in layers_of(model).items():
            assert layer.compute_dtype == "float16", path
            assert layer.kernel.dtype == "float32", path
    finally:
        keras.config.set_dtype_policy("float32")
