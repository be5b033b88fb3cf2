"""TensorFlow functions in tf_keras models become Keras 3 operations that compute the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from kerasbits.tfmot.keras3 import to_keras3
from kerasbits.tfmot.keras3_functions import FUNCTIONS
from kerasbits.tfmot.keras3_operations import BINARY, REDUCTIONS, UNARY

L = tf_keras.layers
K = tf_keras.backend
CONSTANT = np.linspace(-1, 1, 6, dtype=np.float32)
ROWS = np.float32([[1, 2, 3]] * 6)

CASES = [
    lambda x: 1 + x * 2 - x / 3,
    lambda x: 2 - x,
    lambda x: 2 / (x + 3.5),
    lambda x: -(x**2),
    lambda x: x // 2,
    lambda x: x % 2,
    lambda x: abs(x),
    lambda x: x @ tf.transpose(x, [0, 2, 1]),
    lambda x: x + tf.constant(CONSTANT),
    lambda x: x * tf.Variable(CONSTANT),
    lambda x: tf.cast((x > 0) & ~(x >= 1) | (x < -1), tf.float32),
    lambda x: tf.cast(tf.equal(x, x) & (x <= 0), "float32"),
    lambda x: tf.cast(tf.not_equal(x, 0.5), tf.float16),
    lambda x: tf.maximum(x, 0.1) + tf.minimum(x, 0.1) + tf.math.squared_difference(x, 2.0),
    lambda x: tf.math.divide_no_nan(x, tf.nn.relu(x)),
    lambda x: tf.math.divide(x, 2.0) + tf.math.floordiv(x, 2.0),
    lambda x: tf.math.pow(tf.abs(x), 0.5),
    lambda x: tf.nn.relu(x) + tf.nn.relu6(x) + tf.nn.elu(x) + tf.nn.selu(x),
    lambda x: tf.nn.softsign(x) + tf.nn.softplus(x) + tf.sigmoid(x) + tf.tanh(x),
    lambda x: tf.nn.gelu(x) + tf.nn.gelu(x, approximate=True),
    lambda x: tf.nn.silu(x) + tf.nn.silu(x, beta=2.0) + tf.nn.leaky_relu(x, 0.3),
    lambda x: tf.nn.softmax(x) + tf.nn.softmax(x, axis=1) + tf.nn.log_softmax(x),
    lambda x: tf.exp(x) + tf.math.expm1(x) + tf.math.erf(x) + tf.sin(x) + tf.cos(x),
    lambda x: tf.math.log(tf.abs(x) + 1) + tf.math.log1p(tf.abs(x)),
    lambda x: tf.sqrt(tf.square(x)) + tf.math.rsqrt(tf.square(x) + 1),
    lambda x: tf.math.reciprocal(x + 9) + tf.round(x) + tf.math.rint(x) + tf.sign(x),
    lambda x: tf.floor(x) + tf.math.ceil(x) + tf.negative(x) + tf.add(x, x),
    lambda x: tf.multiply(x, tf.subtract(x, 1.0)) + tf.stop_gradient(tf.identity(x)),
    lambda x: tf.cast(tf.math.is_nan(x), tf.float32) + tf.cast(tf.math.is_finite(x), tf.float32),
    lambda x: tf.cast(tf.logical_or(x > 0, tf.logical_not(tf.logical_and(x > 1, x > 2))), "int32"),
    lambda x: tf.reduce_mean(x, 1) + tf.reduce_sum(x, -2) * tf.reduce_max(x, [1]),
    lambda x: tf.reduce_min(x, (1, 2), keepdims=True) + tf.reduce_prod(x, 2, True),
    lambda x: tf.math.reduce_std(x, 1) + tf.math.reduce_variance(x, axis=1),
    lambda x: tf.reduce_logsumexp(x, 1),
    lambda x: tf.cast(tf.reduce_any(x > 2, 1) | tf.reduce_all(x > -1, 1), tf.float32),
    lambda x: tf.clip_by_value(x, -0.5, 0.5),
    lambda x: tf.where(x > 0, x, 0.0),
    lambda x: tf.einsum("abc,abd->acd", x, x),
    lambda x: tf.tensordot(x, ROWS, 1),
    lambda x: tf.linalg.matmul(x, x, transpose_b=True) + tf.matmul(x, x, False, True),
    lambda x: tf.matmul(x, x, transpose_a=True),
    lambda x: tf.concat([x, x * 2], axis=-1),
    lambda x: tf.stack([x, x * 2], 1),
    lambda x: tf.unstack(x, axis=1)[2],
    lambda x: tf.split(x, 3, axis=2)[1],
    lambda x: tf.split(x, [1, 3, 2], -1)[1],
    lambda x: tf.squeeze(tf.expand_dims(x, 1), 1) + tf.squeeze(tf.expand_dims(x, -1), [-1]),
    lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 0]], constant_values=3.0),
    lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 0]], mode="REFLECT"),
    lambda x: tf.tile(x, [1, 2, 1]) + tf.repeat(x, 2, 1),
    lambda x: tf.reverse(x, [1]) + tf.cumsum(x, 1),
    lambda x: tf.gather(x, [0, 2], axis=1),
    lambda x: tf.one_hot(tf.argmax(x, -1), 6) + tf.one_hot(tf.argmin(x, 2), 6, dtype="float32"),
    lambda x: tf.cast(tf.argmax(x, 1, output_type=tf.int32), tf.float32),
    lambda x: tf.math.l2_normalize(x, -1) + tf.norm(x, axis=2, keepdims=True),
    lambda x: tf.norm(x, ord=1, axis=1),
    lambda x: tf.math.top_k(x, 3)[0],
    lambda x: tf.add_n([x, x, x]),
    lambda x: tf.nn.bias_add(x, CONSTANT),
    lambda x: tf.zeros_like(x) + tf.ones_like(x),
    lambda x: tf.slice(x, [0, 1, 2], [-1, 2, -1]),
    lambda x: x[:, 1:] + x[:, :-1],
    lambda x: x[..., ::2],
    lambda x: x[:, 1, None],
    lambda x: x[:, -1],
    lambda x: tf.reshape(x, [-1, 24]),
    lambda x: tf.reshape(x, (tf.shape(x)[0], 24)),
    lambda x: tf.reshape(x, [tf.shape(x)[0], -1, 3]),
    lambda x: tf.reshape(x, tf.concat([tf.shape(x)[:1], [2, 12]], 0)),
    lambda x: tf.reshape(x, tf.stack([tf.shape(x)[0], tf.shape(x)[1] * tf.shape(x)[2] // 2, 2])),
    lambda x: tf.reshape(x[:1], [tf.size(x[0]) - 4 + 4]),
    lambda x: tf.broadcast_to(x[:, :1], [2, 4, 6]),
    lambda x: K.batch_flatten(x),
    lambda x: K.mean(K.concatenate([x, x]), 1) + K.sum(x),
    lambda x: tf_keras.activations.hard_sigmoid(x) + tf_keras.activations.swish(x),
    lambda x: tf.nn.moments(x, 1)[1],
    lambda x: tf.math.floormod(x, 3.0),
    lambda x: tf.where(tf.greater(x, 1) & tf.greater_equal(x, 0), x, 2.0),
    lambda x: tf.where(tf.less(x, 1) | tf.less_equal(x, 0), x, 2.0),
]
"""Functions of a tensor of shape (batch, 4, 6)."""

IMAGES = [
    lambda x: (
        tf.nn.max_pool2d(x, 2, 2, "SAME") + tf.nn.avg_pool2d(x, [2, 2], [1, 2, 2, 1], "VALID")
    ),
    lambda x: tf.image.resize(x, (8, 6)) + tf.image.resize(x, [8, 6], "nearest"),
    lambda x: tf.nn.space_to_depth(tf.nn.depth_to_space(x, 2), 2),
]
"""Functions of a tensor of shape (batch, 4, 6, 8)."""


def with_function(function, shape=(4, 6)):
    inputs = L.Input(shape, name="x")
    return tf_keras.Model(inputs, function(inputs))


TABLES = {"__operators__.getitem", *UNARY, *BINARY, *REDUCTIONS, *FUNCTIONS}


@pytest.mark.parametrize(("shape", "functions"), [((4, 6), CASES), ((4, 6, 8), IMAGES)])
def test_functions(shape, functions):
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    for number, function in enumerate(functions):
        model = with_function(function, shape)
        twin = to_keras3(model)
        got, want = twin(x), model(x)
        assert keras.backend.standardize_dtype(got.dtype) == want.dtype.name, number
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=str(number))
        again = keras.Model.from_config(twin.get_config())
        np.testing.assert_array_equal(again(x), got, err_msg=str(number))


def test_every_function_of_the_tables_is_tried():
    models = [with_function(f) for f in CASES] + [with_function(f, (4, 6, 8)) for f in IMAGES]
    tried = {getattr(layer, "symbol", None) for model in models for layer in model.layers}
    assert not TABLES - tried


def test_names_of_operations_are_those_of_tf_keras():
    """Keras 3 counts them, and might come to the name of a layer."""
    inputs = L.Input((6,), name="x")
    x = inputs
    for number in range(40):
        x = L.Multiply(name=f"multiply_{number}")([x, x])
    model = tf_keras.Model(inputs, tf.math.l2_normalize(x * 2.0, -1))
    names = [operation.name for operation in to_keras3(model).operations]
    normalize = model.layers[-1].name
    assert names[-1] == normalize
    assert f"{normalize}.4" in names
    assert model.layers[-2].name in names


def failing():
    yield (
        lambda x: tf.nn.crelu(x),
        r"layer 'tf.compat.v1.nn.crelu\w*' \(tf.compat.v1.nn.crelu\): ex",
    )
    yield lambda x: tf.cumsum(x, 1, reverse=True), "expected no reverse, got True"
    yield lambda x: tf.image.resize(x[..., None], (3, 3), preserve_aspect_ratio=True), "aspect"
    yield lambda x: tf.nn.bias_add(x, CONSTANT[:4], data_format="NCW"), "expected NHWC, got NCW"
    yield lambda x: tf.reshape(x, [tf.shape(x)[0], tf.shape(x)[0], -1]), "one unknown size at most"


def test_functions_that_are_not_known_name_the_layer():
    for function, text in failing():
        model = with_function(function)
        with pytest.raises(ValueError, match=text) as caught:
            to_keras3(model)
        assert "layer 'tf." in str(caught.value)
