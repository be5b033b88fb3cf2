"""The same network through both front ends: the same codes, the same report, the same files."""

import keras
import numpy as np
import pytest
import tf_keras
from exportable import PAIRS, SHAPE, images, prune_some

import kerasbits as kb
from kerasbits import sites, tfmot
from kerasbits.tfmot.keras3 import to_keras3
from tflite_export import Interpreter, export

FILES = {
    "packed": ("m.tflite", {"profile": "packed"}),
    "kbits": ("m.kbits", {}),
    "stock": ("m.tflite", {"profile": "stock"}),
    "int8": ("m.tflite", {"profile": "stock", "activations": "int8"}),
}


def network(library):
    """All kinds of layers, a branch, a batch norm that is folded, a layer that is used twice."""
    layers = library.layers
    inputs = layers.Input(SHAPE, name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="first")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = start = layers.ReLU(6.0, name="relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.SeparableConv2D(8, 3, padding="same", activation="relu", name="separable")(x)
    x = layers.Flatten(name="flat")(x + start)
    shared = layers.Dense(200, activation="tanh", name="shared")
    x = shared(shared(x))
    return library.Model(inputs, layers.Dense(5, activation="softmax", name="last")(x), name="net")


def with_weights(model, seed=3):
    """The model with weights that are the same in both libraries."""
    for path, layer in weighty(model):
        for index, weight in enumerate(layer.weights):
            values = np.random.default_rng([seed, index, *path.encode()]).normal(size=weight.shape)
            scale = np.sqrt(np.prod(weight.shape[:-1])) if len(weight.shape) > 1 else 2.0
            positive = "moving_variance" in weight.name
            weight.assign(np.abs(values) + 0.3 if positive else values / scale)
    return model


def both(kernel, inputs, **kwargs):
    """The network quantized by each front end."""
    ours = kb.quantize_model(with_weights(network(keras)), kernel, inputs, **kwargs)
    theirs = tfmot.quantize_model(with_weights(network(tf_keras)), kernel, inputs, **kwargs)
    return ours, theirs


def trained(model, steps=2):
    """The Keras 3 model after a few steps of training, and the end of an epoch."""
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", run_eagerly=True)
    model.fit(images(8 * steps, seed=4), np.arange(8 * steps) % 5, 8, verbose=0)
    kb.adjust(model)
    return model


def weighty(model):
    """Paths and layers with weights: tf_keras has layers for `+`, too."""
    return [(path, layer) for path, layer in sites.walk(model) if layer.weights]


def give_state(source, target):
    """Weights and states of one model to the other, place by place."""
    for (path, old), (also, new) in zip(weighty(source), weighty(target), strict=True):
        assert path == also
        if not hasattr(old, "hosts"):
            new.set_weights(old.get_weights())
            continue
        new.kernel.assign(np.asarray(old.kernel))
    for wrapper in target.layers:
        if isinstance(wrapper, tfmot.KerasbitsQuantizeWrapper) and wrapper.layer.use_bias:
            wrapper.layer.bias.assign(np.asarray(source.get_layer(wrapper.name).bias))
    for old, new in zip(sites.places(source), sites.places(target), strict=True):
        assert (old.path, old.role, old.quantizer) == (new.path, new.role, new.quantizer)
        new.host.assign(old.host.state())


def file_of(model, folder, kind):
    name, options = FILES[kind]
    folder.mkdir(exist_ok=True)
    result = export(model, folder / name, verify=False, **options)
    return result.path.read_bytes()


def codes(model):
    """Codes and bits of all kernels."""
    return {
        (place.path, place.role): place.layer.packed_kernel()
        for place in sites.places(model, "kernel")
    }


def same_codes(one, other):
    one, other = codes(one), codes(other)
    assert one.keys() == other.keys()
    for key, packed in one.items():
        np.testing.assert_array_equal(packed.codes, other[key].codes, err_msg=str(key))
        np.testing.assert_array_equal(packed.bits, other[key].bits, err_msg=str(key))
        np.testing.assert_array_equal(packed.decode(), other[key].decode(), err_msg=str(key))


TRAINED = {
    "uniform": (*PAIRS["uniform4"], "stock"),
    "bitpruning": (*PAIRS["bitpruning"], "int8"),
    "least_squares_binary": (kb.LeastSquaresBinary("ls2"), kb.Uniform(4), "packed"),
    "bsq": (*PAIRS["bsq"], "packed"),
    "apot": (*PAIRS["apot4"], "kbits"),
    "bayesian_bits": (*PAIRS["bayesian_bits"], "packed"),
}
"""Quantizers of kernels and inputs, and a kind of file: all have the codes that are compared."""


@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_state_handed_to_the_other_front_end(name, tmp_path):
    kernel, inputs, kind = TRAINED[name]
    ours, theirs = both(kernel, inputs)
    trained(ours)
    give_state(ours, theirs)
    if name == "bayesian_bits":
        prune_some(ours), prune_some(theirs)
    assert kb.report(theirs).to_dict() == kb.report(ours).to_dict()
    kb.freeze(ours), kb.freeze(theirs)
    assert kb.report(theirs).to_dict() == kb.report(ours).to_dict()
    same_codes(ours, to_keras3(theirs, verify=False))
    assert file_of(ours, tmp_path / "ours", kind) == file_of(theirs, tmp_path / "theirs", kind)


def small(library):
    """Without a batch norm, which the two libraries round differently."""
    layers = library.layers
    return library.Sequential(
        [
            layers.Input(SHAPE, name="image"),
            layers.Conv2D(4, 3, strides=2, activation="relu", name="conv"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Flatten(name="flat"),
            layers.Dense(5, name="fc"),
        ],
        name="small",
    )


@pytest.mark.parametrize("pair", ["bitpruning_channels", "apot4", "bsq", "bayesian_bits", "lst"])
def test_each_front_end_on_its_own(pair, tmp_path):
    """The same float weights and data; quantized, calibrated and frozen apart from each other."""
    files, reports = [], []
    for library, front_end in ((keras, kb), (tf_keras, tfmot)):
        q = front_end.quantize_model(with_weights(small(library)), *PAIRS[pair], rate=2.0)
        kb.calibrate(q, images(16, seed=1))
        kb.adjust(q)
        kb.freeze(q)
        reports.append(kb.report(q).to_json())
        files.append(file_of(q, tmp_path / library.__name__, "packed"))
    assert reports[0] == reports[1]
    assert files[0] == files[1]


def test_trained_in_tf_keras_and_run_by_the_stock_interpreter(tmp_path):
    q = tfmot.quantize_model(
        with_weights(network(tf_keras)), "bitpruning", kb.Uniform(8), {"^first$": kb.Rule("bsq")}
    )
    q.compile("adam", "sparse_categorical_crossentropy")
    epochs = [tfmot.callbacks.AdjustBits(), tfmot.callbacks.FreezeBits(1)]
    q.fit(images(32, seed=4), np.arange(32) % 5, 8, epochs=2, verbose=0, callbacks=epochs)
    x = images(12, seed=5)
    expected = q.predict(x, verbose=0)
    before = [w.numpy() for w in q.weights]
    for kind in ("packed", "stock"):
        name, options = FILES[kind]
        result = export(q, tmp_path / name, sample=x, **options)
        assert result.max_error < 1e-5
        close = np.isclose(Interpreter(result.path).predict(x), expected, atol=1e-4).all(axis=-1)
        # A value at the border of two codes may move a sample.
        assert close.mean() >= 0.9, kind
    for weight, value in zip(q.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
