"""Twins of quantized layers: all that their quantizers know, so that training goes on."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from exportable import PAIRS, images

import kerasbits as kb
from kerasbits import sites, tfmot

L = tf_keras.layers

METHODS = {
    "uniform": (kb.Uniform(4, granularity="channel"), kb.Uniform(8)),
    "bitpruning": PAIRS["bitpruning"],
    "least_squares_binary": PAIRS["ls2"],
    "bsq": PAIRS["bsq"],
    "apot": PAIRS["apot4"],
    "bayesian_bits": PAIRS["bayesian_bits"],
    "kernels_alone": (kb.APoT(3), None),
    "inputs_alone": (None, kb.Uniform(5)),
}


def network():
    """A layer of each form; one is used twice, one is in a nested model, one stays float."""
    tf_keras.utils.set_random_seed(1)
    ids, image = L.Input((6,), name="ids"), L.Input((9, 9, 3), name="image")
    x = L.Conv2D(4, 3, padding="same", name="conv")(image)
    x = L.DepthwiseConv2D(3, name="depthwise")(tf.nn.relu(x))
    x = L.SeparableConv2D(3, 3, name="separable")(x)
    x = L.Conv2DTranspose(2, 2, name="transposed")(x)
    head = tf_keras.Sequential([L.InputLayer((72,)), L.Dense(6, name="inner")], name="head")
    x = head(L.Flatten()(x))
    y = L.Embedding(7, 4, name="table")(ids)
    y = L.DepthwiseConv1D(2, name="depthwise1d")(L.Conv1D(4, 2, name="along")(y))
    y = L.Conv1DTranspose(3, 2, name="widen")(L.SeparableConv1D(3, 2, name="separable1d")(y))
    shared = L.Dense(6, "relu", name="shared")
    x = shared(shared(x + L.Dense(6, name="flat")(L.Flatten()(y))))
    return tf_keras.Model([ids, image], L.Dense(3, name="floats")(x), name="net")


def data(count=8):
    ids = np.random.default_rng(0).integers(0, 7, (count, 6)).astype(np.float32)
    return [ids, images(count, seed=2)]


def quantized(kernel, inputs, floats="floats", rate=1.0):
    """Calibrated, with states that are not those it started with."""
    q = tfmot.quantize_model(network(), kernel, inputs, {f"^({floats})$": None}, rate=rate)
    kb.calibrate(q, [data()])
    for number, place in enumerate(sites.places(q)):
        state = place.host.state()
        if place.quantizer.stochastic:
            place.host.seed_generator.state.assign([number, 7])
        place.host.assign({key: state[key] * np.float32(1.01) for key in state if key != "seen"})
    return q


@pytest.mark.parametrize("name", METHODS)
def test_twins_know_all_that_the_model_knows(name):
    floats = "floats" if name == "uniform" else "floats|along|widen|transposed|.*1d|flat|separable"
    q = quantized(*METHODS[name], floats, rate=0.5)
    twin = tfmot.to_keras3(q)
    assert kb.report(twin).to_dict() == kb.report(q).to_dict()
    theirs, ours = list(sites.places(q)), list(sites.places(twin))
    assert [(p.path, p.role) for p in theirs] == [(p.path, p.role) for p in ours]
    for old, new in zip(theirs, ours, strict=True):
        assert (new.host.quantizer, new.host.rate) == (old.host.quantizer, 0.5)
        assert new.host.site == old.host.site
        for key, value in old.host.state().items():
            np.testing.assert_array_equal(new.host.state()[key], value, err_msg=f"{old} {key}")
    # Of a training step, with random gates if there are any: outputs, losses, what moves.
    x = [tf.constant(array) for array in data(4)]
    want, got = q(x, training=True), twin(x, training=True)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(sum(twin.losses), sum(q.losses), rtol=1e-5)
    assert [w.shape for w in twin.trainable_weights]
    assert len(twin.trainable_weights) == len(q.trainable_weights)


def test_training_goes_on_in_keras_3():
    q = quantized(*METHODS["bitpruning"], "floats|.*1d|separable|widen")
    twin = tfmot.to_keras3(q)
    before = kb.report(q).to_dict()
    bits = kb.report(twin).average_bits
    twin.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    twin.fit(data(), np.ones((8, 3)), verbose=0)
    assert kb.report(twin).average_bits < bits
    kb.freeze(twin)
    assert kb.report(twin).average_bits == pytest.approx(bits, abs=0.9)
    assert kb.report(q).to_dict() == before


def test_an_annotated_model_is_not_quantized_yet():
    annotated = tfmot.quantize_annotate_model(network(), "apot", None, {"^floats$": None})
    with pytest.raises(ValueError, match=r"expected a quantized layer, got one that is annotated"):
        tfmot.to_keras3(annotated)
    with pytest.raises(ValueError, match=r"kerasbits\.tfmot\.quantize_apply"):
        tfmot.to_keras3(annotated)


def test_the_twin_of_an_applied_model():
    annotated = tfmot.quantize_annotate_model(network(), "apot", "uniform", {"^floats$": None})
    q = tfmot.quantize_apply(annotated)
    kb.calibrate(q, [data()])
    twin = tfmot.to_keras3(q, sample=data(3))
    np.testing.assert_allclose(twin(data(3)), q(data(3)), rtol=1e-5, atol=1e-6)


def test_names_with_a_slash():
    """As in some applications of tf_keras; in Keras 3 it would separate paths."""
    inputs = L.Input((4, 4, 2), name="x")
    x = L.SeparableConv2D(3, 2, name="block/separable")(L.Conv2D(2, 2, name="block/conv")(inputs))
    q = tfmot.quantize_model(tf_keras.Model(inputs, x), "apot", "uniform")
    assert next(sites.places(q, "kernel")).path == "block/conv"
    twin = tfmot.to_keras3(q)
    ours, theirs = (kb.report(m).to_dict()["rows"] for m in (twin, q))
    assert [row["name"] for row in ours] == [
        "block_conv", "block_separable/depthwise", "block_separable/pointwise",
    ]  # fmt: skip
    assert [{**row, "name": ""} for row in ours] == [{**row, "name": ""} for row in theirs]
