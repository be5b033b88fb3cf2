"""Every layer of tf_keras that Keras 3 has too computes the same there."""

import numpy as np
import pytest
import tf_keras

from kerasbits.tfmot.keras3 import to_keras3
from kerasbits.tfmot.keras3_layers import keras3_class

L = tf_keras.layers

CASES = {
    (6,): [
        lambda: L.Dense(3, "relu", kernel_regularizer="l2", bias_constraint="non_neg"),
        lambda: L.Dense(3, "hard_sigmoid"),
        lambda: L.Dense(3, L.LeakyReLU(0.1)),
        lambda: L.Dense(3, lambda x: 2 * x),
        lambda: L.Activation("hard_sigmoid"),
        lambda: L.Activation("gelu"),
        lambda: L.ELU(0.7),
        lambda: L.LeakyReLU(),
        lambda: L.PReLU("uniform"),
        lambda: L.ReLU(6.0, 0.1, 0.2),
        lambda: L.Softmax(),
        lambda: L.ThresholdedReLU(0.3),
        lambda: L.BatchNormalization(),
        lambda: L.LayerNormalization(),
        lambda: L.UnitNormalization(),
        lambda: L.Rescaling(0.5, 1.0),
        lambda: L.Normalization(mean=[0.1] * 6, variance=[2.0] * 6),
        lambda: L.Dropout(0.5, seed=3),
        lambda: L.GaussianNoise(0.1),
        lambda: L.GaussianDropout(0.1),
        lambda: L.AlphaDropout(0.1),
        lambda: L.ActivityRegularization(0.1),
        lambda: L.RepeatVector(2),
        lambda: L.Reshape((2, 3)),
        lambda: L.Lambda(lambda x: x * 3),
        lambda: L.Identity(),
        lambda: L.Flatten(),
        lambda: L.Discretization([0.0, 1.0]),
    ],
    (7, 4): [
        lambda: L.Conv1D(3, 3, padding="causal", dilation_rate=2),
        lambda: L.Conv1DTranspose(3, 3, strides=2),
        lambda: L.DepthwiseConv1D(3, depth_multiplier=2),
        lambda: L.SeparableConv1D(5, 3),
        lambda: L.AveragePooling1D(),
        lambda: L.MaxPooling1D(),
        lambda: L.GlobalAveragePooling1D(),
        lambda: L.GlobalMaxPooling1D(),
        lambda: L.UpSampling1D(),
        lambda: L.ZeroPadding1D(2),
        lambda: L.Cropping1D(1),
        lambda: L.Permute((2, 1)),
        lambda: L.SpatialDropout1D(0.1),
        lambda: L.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d"),
        lambda: L.LSTM(3, return_sequences=True),
        lambda: L.LSTM(3, recurrent_activation="hard_sigmoid"),
        lambda: L.GRU(3),
        lambda: L.GRU(3, reset_after=False, go_backwards=True),
        lambda: L.SimpleRNN(3, unroll=True),
        lambda: L.RNN(L.LSTMCell(3)),
        lambda: L.RNN([L.GRUCell(3), L.SimpleRNNCell(2)]),
        lambda: L.Bidirectional(L.LSTM(3)),
        lambda: L.Masking(),
        lambda: L.TimeDistributed(L.Dense(2, "hard_sigmoid")),
    ],
    (8, 9, 4): [
        lambda: L.Conv2D(6, 3, strides=2, padding="same", groups=2),
        lambda: L.Conv2DTranspose(3, 3, strides=2, padding="same"),
        lambda: L.DepthwiseConv2D(3, use_bias=False),
        lambda: L.SeparableConv2D(5, 3, depthwise_regularizer="l1"),
        lambda: L.AveragePooling2D(padding="same"),
        lambda: L.MaxPooling2D(3, 1),
        lambda: L.GlobalAveragePooling2D(keepdims=True),
        lambda: L.GlobalMaxPooling2D(),
        lambda: L.UpSampling2D(interpolation="bilinear"),
        lambda: L.ZeroPadding2D(((0, 1), (2, 0))),
        lambda: L.Cropping2D(1),
        lambda: L.SpatialDropout2D(0.1),
        lambda: L.BatchNormalization(scale=False, epsilon=0.1),
        lambda: L.GroupNormalization(2),
        lambda: L.Resizing(5, 5),
        lambda: L.CenterCrop(4, 4),
        lambda: L.RandomFlip(),
        lambda: L.RandomRotation(0.1),
        lambda: L.RandomZoom(0.1),
        lambda: L.RandomTranslation(0.1, 0.1),
        lambda: L.RandomContrast(0.1),
        lambda: L.RandomBrightness(0.1),
    ],
    (3, 6, 6, 2): [
        lambda: L.Conv3D(2, 2),
        lambda: L.Conv3DTranspose(2, 2),
        lambda: L.AveragePooling3D(),
        lambda: L.MaxPooling3D(),
        lambda: L.GlobalAveragePooling3D(),
        lambda: L.GlobalMaxPooling3D(),
        lambda: L.UpSampling3D(),
        lambda: L.ZeroPadding3D(),
        lambda: L.Cropping3D(1),
        lambda: L.SpatialDropout3D(0.1),
        lambda: L.ConvLSTM2D(2, 3),
    ],
    (3, 6, 2): [lambda: L.ConvLSTM1D(2, 3)],
    (2, 3, 4, 4, 1): [lambda: L.ConvLSTM3D(2, 2)],
}
"""Layers of one input, by the shape of a sample."""

IDS = [
    lambda: L.CategoryEncoding(100),
    lambda: L.Hashing(5),
    lambda: L.IntegerLookup(vocabulary=list(range(50))),
]
"""Layers of three whole numbers below 100."""

JOINS = [
    lambda: L.Add(),
    lambda: L.Average(),
    lambda: L.Concatenate(),
    lambda: L.Dot(axes=2),
    lambda: L.Maximum(),
    lambda: L.Minimum(),
    lambda: L.Multiply(),
    lambda: L.Subtract(),
    lambda: L.Attention(use_scale=True),
    lambda: L.AdditiveAttention(),
]
"""Layers of a list of two inputs."""


def scrambled(model, seed=0):
    """The model with weights that are neither 0 nor 1."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "float" in weight.dtype.name:
            weight.assign(np.abs(rng.normal(size=weight.shape)) + 0.1)
    return model


def single(make, shape):
    inputs = L.Input(shape, name="x")
    return scrambled(tf_keras.Model(inputs, make()(inputs)))


@pytest.mark.parametrize("shape", CASES, ids=str)
def test_layers_of_one_input(shape):
    """`to_keras3` compares what they compute."""
    for make in CASES[shape]:
        model = single(make, shape)
        twin = to_keras3(model)
        (old, new), name = (model.layers[1], twin.layers[1]), type(model.layers[1]).__name__
        assert type(new) is keras3_class(type(old)), name
        assert (new.name, len(new.weights)) == (old.name, len(old.weights)), name
        assert new.trainable is True, name


def test_layers_of_whole_numbers():
    for make in IDS:
        inputs = L.Input((3,), dtype="int64", name="x")
        model = tf_keras.Model(inputs, make()(inputs))
        assert type(to_keras3(model).layers[1]) is keras3_class(type(model.layers[1]))


def test_layers_of_two_inputs():
    for make in JOINS:
        inputs = [L.Input((4, 5), name="a"), L.Input((4, 5), name="b")]
        model = scrambled(tf_keras.Model(inputs, make()(inputs)))
        twin = to_keras3(model)
        assert type(twin.layers[2]) is keras3_class(type(model.layers[2]))
        assert len(twin.weights) == len(model.weights)


def test_every_common_layer_is_tried():
    """Those that are left compute nothing, or take no tensors of numbers."""
    tried = {type(make()) for makes in (*CASES.values(), IDS, JOINS) for make in makes}
    found = [getattr(L, name) for name in dir(L)]
    layers = {c for c in found if isinstance(c, type) and issubclass(c, L.Layer)}
    left = {c.__name__ for c in layers - tried if keras3_class(c) is not None}
    assert left == LEFT


LEFT = {
    "Layer", "InputLayer", "Wrapper", "StackedRNNCells", "LSTMCell", "GRUCell", "SimpleRNNCell",
    "Embedding", "MultiHeadAttention",  # in test_keras3_models.py
    "StringLookup", "TextVectorization", "HashedCrossing",  # of strings
    "SpectralNormalization",  # fails in tf_keras beside Keras 3
    "RandomCrop",  # which Keras 3 crops elsewhere
}  # fmt: skip
