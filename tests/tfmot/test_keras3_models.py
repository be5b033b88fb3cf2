"""Twins of whole models: graphs of every kind, applications, what stays as it was."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from kerasbits import sites
from kerasbits.tfmot.keras3 import to_keras3

L = tf_keras.layers


def scrambled(model, seed=0):
    """The model with weights that are neither 0 nor 1."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "float" in weight.dtype.name:
            weight.assign(np.abs(rng.normal(size=weight.shape)) * 0.3 + 0.1)
    return model


def random(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def same_outputs(model, twin, inputs):
    """Whole models, in graphs."""
    want, got = model.predict(inputs, verbose=0), twin.predict(inputs, verbose=0)
    assert keras.tree.map_structure(np.shape, got) == keras.tree.map_structure(np.shape, want)
    for one, other in zip(keras.tree.flatten(want), keras.tree.flatten(got), strict=True):
        assert np.ptp(one) > 0
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


def residual(shared=None):
    """A branch, `x + y`, TensorFlow functions, a layer used twice, two outputs."""
    shared = shared or L.Dense(5, name="shared")
    inputs = L.Input((6, 6, 2), name="image")
    x = L.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(inputs)
    x = start = L.BatchNormalization(name="norm")(x)
    x = tf.nn.relu(L.Conv2D(4, 3, padding="same", name="conv2")(x) + start)[:, 1:] * 0.5
    x = tf.reshape(x, [tf.shape(x)[0], -1, 5])
    x = shared(shared(x))
    return tf_keras.Model(inputs, [x, tf.reduce_mean(x, 1)], name="residual")


def test_functional():
    model = scrambled(residual())
    twin = to_keras3(model)
    assert [layer.name for layer in twin.layers] == ["image", "conv", "norm", "conv2", "shared"]
    assert (twin.name, twin.built, twin.compiled) == ("residual", True, False)
    assert len(twin.get_layer("shared")._inbound_nodes) == 2
    same_outputs(model, twin, random(3, 6, 6, 2))


def test_nested_models_shared_by_two_inputs_in_a_dictionary():
    inner = scrambled(residual())
    head = tf_keras.Sequential([L.InputLayer((5,)), L.Dense(3), L.LeakyReLU()], name="head")
    left, right = L.Input((6, 6, 2), name="left"), L.Input((6, 6, 2), name="right")
    (a, b), (c, _) = inner(left), inner(right)
    outputs = {"sum": head(b), "rows": L.Concatenate(name="join")([a, c])}
    model = tf_keras.Model({"left": left, "right": right}, outputs, name="siamese")
    twin = to_keras3(model)
    paths = [path for path, layer in sites.walk(twin) if layer.weights]
    assert paths == [path for path, layer in sites.walk(model) if layer.weights]
    assert "residual/conv" in paths
    assert "head/dense" in "".join(paths)
    same_outputs(model, twin, {"left": random(3, 6, 6, 2), "right": random(3, 6, 6, 2, seed=2)})


def test_sequential():
    model = scrambled(
        tf_keras.Sequential(
            [
                L.Conv1D(4, 3, padding="causal", input_shape=(8, 2), name="conv"),
                tf_keras.Sequential([L.InputLayer((8, 4)), L.ReLU(6.0)], name="inner"),
                L.GlobalMaxPooling1D(name="pool"),
                L.Dense(3, name="fc"),
            ],
            name="sequential_model",
        )
    )
    twin = to_keras3(model)
    assert isinstance(twin, keras.Sequential)
    assert [layer.name for layer in twin.layers] == ["conv", "inner", "pool", "fc"]
    same_outputs(model, twin, random(3, 8, 2))


def test_ids_masks_and_recurrent_layers():
    ids = L.Input((None,), name="ids")
    x = L.Embedding(11, 4, mask_zero=True)(ids)
    x = L.Bidirectional(L.LSTM(3, return_sequences=True))(x)
    states = L.GRU(4, return_sequences=True, return_state=True)(x)
    x = L.GRU(4)(x, initial_state=states[1])
    model = scrambled(tf_keras.Model(ids, x))
    twin = to_keras3(model)
    sentences = np.array([[3, 10, 0, 0], [1, 2, 3, 0]], np.float32)
    same_outputs(model, twin, sentences)
    longer = np.pad(sentences, [(0, 0), (0, 2)])
    np.testing.assert_allclose(twin(sentences), twin(longer), rtol=1e-5)


def test_attention():
    queries, values = L.Input((4, 6)), L.Input((5, 6))
    attention = L.MultiHeadAttention(2, 3, name="attention")
    x, scores = attention(queries, values, return_attention_scores=True)
    model = scrambled(tf_keras.Model([queries, values], [L.LayerNormalization()(x), scores]))
    twin = to_keras3(model)
    assert len(twin.get_layer("attention").weights) == 8
    same_outputs(model, twin, [random(2, 4, 6), random(2, 5, 6)])


def test_mixed_precision():
    inputs = L.Input((6,), name="x")
    x = L.Dense(4, dtype="mixed_float16", name="half")(inputs)
    model = scrambled(tf_keras.Model(inputs, L.Dense(3, dtype="float32", name="whole")(x)))
    twin = to_keras3(model)
    dtypes = [(la.compute_dtype, la.dtype) for la in twin.layers[1:]]
    assert dtypes == [("float16", "float32"), ("float32", "float32")]
    x = random(3, 6)
    np.testing.assert_allclose(twin(x), model(x), rtol=1e-2)


def test_a_functional_subclass_with_a_training_step_of_its_own():
    class Own(tf_keras.Model):
        def train_step(self, data):
            return {}

    inputs = L.Input((6,), name="x")
    model = scrambled(Own(inputs, L.Dense(3)(inputs)))
    same_outputs(model, to_keras3(model), random(2, 6))


def test_frozen_layers_and_regularizers():
    inputs = L.Input((6,), name="x")
    fixed = L.Dense(4, trainable=False, name="fixed")
    x = L.Dense(3, kernel_regularizer="l2", activity_regularizer="l1", name="free")(fixed(inputs))
    model = scrambled(tf_keras.Model(inputs, x))
    twin = to_keras3(model)
    assert [w.path for w in twin.trainable_weights] == ["free/kernel", "free/bias"]
    x = random(2, 6)
    model(x), twin(x)
    np.testing.assert_allclose(sum(twin.losses), sum(model.losses), rtol=1e-5)


def test_what_add_loss_was_given_stays_behind():
    inputs = L.Input((6,), name="x")
    x = L.Dense(3, name="fc")(inputs)
    model = scrambled(tf_keras.Model(inputs, x, name="lossy"))
    model.add_loss(tf.reduce_mean(x))
    with pytest.warns(UserWarning, match=r"model 'lossy', layer 'add_loss\w*': what was given"):
        twin = to_keras3(model)
    assert [layer.name for layer in twin.layers] == ["x", "fc"]


def test_the_twin_is_a_model_of_its_own(tmp_path):
    """Keras 3 saves and trains it, and the given model stays as it was."""
    model = scrambled(residual())
    before = [w.numpy() for w in model.weights]
    twin = to_keras3(model)
    twin.save(tmp_path / "twin.keras")
    x = random(3, 6, 6, 2)
    loaded = keras.models.load_model(tmp_path / "twin.keras")
    np.testing.assert_array_equal(loaded(x)[0], twin(x)[0])
    twin.compile("sgd", ["mse", "mse"], jit_compile=False)
    twin.fit(x, [np.zeros((3, 24, 5)), np.zeros((3, 5))], verbose=0)
    assert not np.allclose(twin.get_layer("conv").kernel, model.get_layer("conv").kernel)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_functions_of_keras_2_are_there_when_a_twin_is_loaded(tmp_path):
    inputs = L.Input((6,), name="x")
    x = L.ThresholdedReLU(0.2)(L.Dense(4, "hard_sigmoid")(inputs))
    model = scrambled(tf_keras.Model(inputs, x))
    twin = to_keras3(model)
    twin.save(tmp_path / "twin.keras")
    x = random(3, 6)
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "twin.keras")(x), twin(x))
    np.testing.assert_allclose(twin(x), model(x), rtol=1e-6)


APPLICATIONS = {
    "MobileNetV2": {"alpha": 0.35, "input_shape": (32, 32, 3)},
    "MobileNetV3Small": {"alpha": 0.75, "input_shape": (32, 32, 3)},
    "ResNet50": {"input_shape": (32, 32, 3)},
}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_applications(name):
    kwargs = APPLICATIONS[name]
    model = getattr(tf_keras.applications, name)(weights=None, classes=3, **kwargs)
    twin = to_keras3(model)  # compares them layer by layer
    names = [la.name.replace("/", "_") for la in model.layers if not la.name.startswith("tf.")]
    assert [layer.name for layer in twin.layers] == names
    assert twin.count_params() == model.count_params()


def test_layers_of_the_users_own():
    model = tf_keras.Sequential([L.InputLayer((4,), name="x"), Scale(3.0, name="mine")])
    twin = to_keras3(model, classes={Scale: Keras3Scale})
    assert type(twin.layers[0]) is Keras3Scale
    same_outputs(model, twin, random(2, 4))
    by_function = to_keras3(model, classes={Scale: lambda config: Keras3Scale(config["factor"])})
    same_outputs(model, by_function, random(2, 4))


class Scale(L.Layer):
    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return self.factor * inputs

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class Keras3Scale(keras.layers.Layer):
    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return self.factor * inputs
