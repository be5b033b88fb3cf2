"""The converter in another process, as other backends than TensorFlow use it."""

import keras
import numpy as np
import pytest
from keras import layers

from tflite_export import converter, flatbuffer, float_tflite


def network(*more):
    keras.utils.set_random_seed(0)
    first = layers.Conv2D(2, 3, activation="relu")
    return keras.Sequential([keras.Input((6, 6, 1), name="image"), first, *more], name="small")


@pytest.fixture
def elsewhere(monkeypatch):
    """`convert` as on another backend; only the other process may convert."""
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    calls = []

    def here(plain):
        calls.append(plain)
        raise converter.ConversionError("not here")

    monkeypatch.setattr(converter, "_convert_here", here)
    return calls


def operators(data):
    tree = flatbuffer.read(data)
    return [flatbuffer.builtin_code(tree, op) for op in tree.subgraphs[0].operators]


def test_what_is_not_for_the_other_process(monkeypatch):
    """Flags that TensorFlow's XLA does not know end a process, a cluster makes it wait."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_flag_of_jax_alone=1")
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["localhost:1"]}}')
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("HERE", "too")
    found = converter._environment()
    assert not {"XLA_FLAGS", "TF_CONFIG"} & set(found)
    assert (found["KERAS_BACKEND"], found["HERE"]) == ("tensorflow", "too")


def test_another_process_gives_the_same_operators_and_constants(elsewhere, monkeypatch):
    plain = network(layers.Flatten(), layers.Dense(2, activation="softmax"))
    found = float_tflite(plain)
    assert elsewhere == []
    monkeypatch.undo()
    expected = float_tflite(plain)
    assert operators(found) == operators(expected)
    assert len(found) == len(expected)
    kernel = np.moveaxis(plain.get_weights()[0], -1, 0).tobytes()
    assert kernel in bytes(found)
    assert kernel in bytes(expected)


def test_modules_of_other_models_may_be_out_of_reach(elsewhere, monkeypatch):
    class Other(layers.Layer):
        __module__ = "a_script_that_is_nowhere"

    registered = {"tests>Other": Other, **keras.saving.get_custom_objects()}
    monkeypatch.setattr(keras.saving, "get_custom_objects", lambda: registered)
    assert float_tflite(network(layers.Flatten()))
    assert elsewhere == []


def test_what_the_other_process_cannot_load_is_tried_here(elsewhere):
    class Local(layers.Layer):
        def call(self, x):
            return x

    plain = network(Local())
    with pytest.raises(converter.ConversionError, match=r"cannot load it \(.*Local") as error:
        float_tflite(plain)
    assert len(elsewhere) == 1
    assert "KERAS_BACKEND=tensorflow" in str(error.value)


def test_what_the_converter_refuses_is_not_tried_again(elsewhere):
    plain = network(layers.Reshape((-1, 2)), layers.LSTM(2))
    with pytest.raises(converter.ConversionError, match="model 'small': TFLite cannot hold it"):
        float_tflite(plain)
    assert elsewhere == []


def test_a_process_that_dies_is_told(elsewhere, monkeypatch):
    monkeypatch.setattr(converter, "_PROGRAM", "import os; print('gone'); os.abort()")
    with pytest.raises(
        converter.ConversionError, match="to end well, got exit code -6: no message"
    ):
        float_tflite(network())
