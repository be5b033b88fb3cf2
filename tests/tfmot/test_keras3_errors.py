"""What has no twin: errors that name the layer and say what to do."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from kerasbits import tfmot
from kerasbits.tfmot import keras3_layers
from kerasbits.tfmot.keras3 import to_keras3
from kerasbits.tfmot.keras3_check import random_inputs, relative_difference
from tflite_export import export

L = tf_keras.layers


class Own(L.Dense):
    """A subclass: nobody knows what else it does."""


class Called(tf_keras.Model):
    def __init__(self):
        super().__init__(name="called")
        self.fc = L.Dense(3)

    def call(self, inputs):
        return self.fc(inputs)


def chain(*layers, shape=(4,)):
    return tf_keras.Sequential([L.InputLayer(shape, name="x"), *layers], name="chain")


def twice(training):
    inputs = L.Input((4,), name="x")
    return tf_keras.Model(inputs, L.Dropout(0.5, name="drop")(inputs, training=training))


def bad_models():
    called = Called()
    called(np.ones((1, 4)))
    loose = tf_keras.Sequential([L.Dense(3)], name="loose")
    ragged = L.Input((None, 2), ragged=True, name="rows")
    return [
        (
            keras.Sequential([keras.Input((4,))], name="k3"),
            r"model 'k3': expected a tf_keras model",
        ),
        (3, "expected a tf_keras model, got int"),
        (called, r"model 'called': expected a Sequential or functional model, got Called, whose"),
        (loose, r"model 'loose': expected a built model, got one without an input shape"),
        (chain(Own(3, name="own")), r"layer 'own' \(Own\): expected a layer that Keras 3 has too"),
        (chain(Own(3)), r"to_keras3\(model, classes=\{Own: \.\.\.\}\)"),
        (
            chain(L.LocallyConnected1D(2, 3, name="local"), shape=(6, 2)),
            r"layer 'local' \(LocallyConnected1D\): expected a layer that Keras 3 has too",
        ),
        (
            chain(L.LSTM(3, time_major=True, name="rows"), shape=(6, 2)),
            r"layer 'rows' \(LSTM\): Keras 3 has no such layer: there is no time_major=True",
        ),
        (twice(True), r"layer 'drop': expected a call that leaves training open, got training=T"),
        (
            tf_keras.Model(ragged, L.Lambda(lambda x: x.to_tensor())(ragged)),
            r"layer 'rows': expected a dense input, got sparse or ragged",
        ),
    ]


def test_models_without_a_twin():
    for model, text in bad_models():
        with pytest.raises(ValueError, match=text):
            to_keras3(model)
    assert to_keras3(twice(False)).output_shape == (None, 4)


def test_a_layer_that_computes_something_else_is_named(monkeypatch):
    """As long as this is not translated, sigmoids of Keras 2 would silently be others."""
    monkeypatch.setattr(keras3_layers.keras2, "hard_sigmoid", keras.activations.hard_sigmoid)
    inner = chain(L.Dense(4, name="first"), L.Dense(3, "hard_sigmoid", name="steep"))
    inputs = L.Input((4,), name="y")
    model = tf_keras.Model(inputs, inner(inputs * 2.0))
    text = r"layer 'chain/steep' \(Dense\): expected Keras 3 to compute what tf_keras computes, got"
    with pytest.raises(ValueError, match=text):
        to_keras3(model)
    assert to_keras3(model, verify=False).output_shape == (None, 3)


def test_classes_that_compute_something_else_are_found():
    model = chain(Own(3, name="own", kernel_initializer="zeros", bias_initializer="ones"))
    model.layers[-1].bias.assign([1.0, -1.0, 1.0])
    other = {Own: lambda config: keras.layers.Dense(3, "relu", name="own")}
    with pytest.raises(ValueError, match=r"layer 'own' \(Own\): expected Keras 3 to compute what"):
        to_keras3(model, classes=other)
    wrong = {Own: lambda config: keras.layers.Dense(4, name="own")}
    with pytest.raises(ValueError, match=r"layer 'own' \(Own\): expected weights of shapes"):
        to_keras3(model, classes=wrong)
    assert to_keras3(model, classes={Own: keras.layers.Dense}).count_params() == 15


def test_samples():
    inputs = [L.Input((4,), name="a"), L.Input((2, 2), dtype="int32", name="b")]
    model = tf_keras.Model(
        inputs, L.Flatten()(inputs[0]) + L.Flatten()(tf.cast(inputs[1], "float32"))
    )
    good = [np.ones((3, 4)), np.ones((3, 2, 2), int)]
    assert to_keras3(model, sample=good).output_shape == (None, 4)
    for sample, text in [
        (good[0], "sample: expected 2 inputs, got 1"),
        ([good[0], np.ones((3, 2))], r"sample, input 'b': expected shape \(None, 2, 2\), got \(3,"),
        ([good[0], "b"], "sample: expected arrays that fit the types"),
        ([good[0][:0], good[1][:0]], r"input 'a': expected shape \(None, 4\), got \(0, 4\)"),
    ]:
        with pytest.raises(ValueError, match=text):
            to_keras3(model, sample=sample)


def test_inputs_that_cannot_be_drawn_need_a_sample():
    words = L.Input((2,), dtype="string", name="words")
    model = tf_keras.Model(words, L.Lambda(tf.strings.length, name="length")(words))
    with pytest.raises(ValueError, match="input 'words': expected a sample for inputs of type str"):
        random_inputs(model)


def test_random_inputs_are_ids_where_an_embedding_reads_them():
    ids = L.Input((50,), name="ids")
    rows = L.Embedding(3, 2)(L.Reshape((5, 10))(ids))
    nested = tf_keras.Sequential([L.InputLayer((50,)), L.Embedding(5, 2)])(ids)
    other, flags = L.Input((50,), name="x"), L.Input((50,), dtype="bool", name="flags")
    model = tf_keras.Model([ids, other, flags], [rows, nested, other, flags])
    ids, other, flags = (np.asarray(values) for values in random_inputs(model))
    assert set(ids.ravel()) == {0, 1, 2}
    assert np.abs(other).max() > 1.5
    assert (flags.dtype, flags.min(), flags.max()) == (bool, False, True)


def test_relative_difference():
    one = np.float32([1, -4, np.nan, np.inf])
    assert relative_difference(one, one) == 0
    assert relative_difference(one, one + np.float32([0, 1, 0, 0])) == 0.25
    assert relative_difference(one, np.float32([1, -4, 0, np.inf])) == np.inf
    assert relative_difference(one, np.float32([np.nan, -4, np.nan, np.inf])) == np.inf
    assert relative_difference(one, -one) == np.inf
    assert relative_difference(one[:2], one[:2] * np.nan) == np.inf
    assert relative_difference(one, one[:3]) == np.inf
    assert relative_difference(np.zeros(3), np.zeros(3)) == 0
    assert relative_difference(np.zeros(3), np.ones(3)) == np.inf
    assert relative_difference(np.array(["a"]), np.array(["b"])) == np.inf


def test_export_names_what_it_takes(tmp_path):
    for model in (3, L.Dense(3)):
        with pytest.raises(ValueError, match="expected a"):
            export(model, tmp_path / "m.tflite")
    plain = chain(L.Dense(3, name="fc"))
    with pytest.raises(ValueError, match="model 'chain': expected at least one quantized layer"):
        export(plain, tmp_path / "m.tflite")
    moving = tfmot.quantize_model(plain, "bitpruning")
    with pytest.raises(ValueError, match="layer 'fc', kernel: expected frozen bits"):
        export(moving, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())
