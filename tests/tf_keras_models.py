"""Tiny tf_keras models and data for the tests of `kerasbits.tfmot`."""

import numpy as np
import tf_keras

from kerasbits.quantizers import NAMES

METHODS = list(NAMES)
SHAPE = (6, 6, 2)
CLASSES = 3


def inputs_for(method):
    """The method itself where it works on inputs, else the plain one."""
    return method if "input" in NAMES[method].roles else "uniform"


def batch(count=32, shape=SHAPE, seed=0):
    """Inputs and labels of a problem that can be learned."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, *shape)).astype(np.float32)
    return x, x.reshape(count, -1)[:, :CLASSES].argmax(axis=-1)


def network(around=lambda layer: layer, layers=tf_keras.layers, model=tf_keras.Model):
    """A convolution, batch norm, a separable convolution and a dense layer.

    Args:
        around: applied to the layers that have kernels.
        layers, model: of the Keras to be used.
    """
    inputs = layers.Input(SHAPE, name="image")
    x = around(layers.Conv2D(4, 3, activation="relu", name="conv"))(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = around(layers.SeparableConv2D(4, 3, padding="same", name="sep"))(x)
    x = layers.Flatten(name="flat")(x)
    return model(inputs, around(layers.Dense(CLASSES, name="last"))(x), name="net")


def small(around=lambda layer: layer):
    """As `network`, without the separable convolution."""
    inputs = tf_keras.layers.Input(SHAPE, name="image")
    x = around(tf_keras.layers.Conv2D(3, 3, strides=2, activation="relu", name="conv"))(inputs)
    x = tf_keras.layers.BatchNormalization(name="norm")(x)
    x = tf_keras.layers.Flatten(name="flat")(x)
    return tf_keras.Model(inputs, around(tf_keras.layers.Dense(CLASSES, name="last"))(x))


def compiled(model, optimizer=None, **kwargs):
    """The model, ready to be trained on `batch`."""
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or tf_keras.optimizers.Adam(0.01), loss, **kwargs)
    return model


def trained(model, epochs=1, **kwargs):
    """The compiled model after some epochs, and the losses."""
    x, y = batch()
    done = model.fit(x, y, epochs=epochs, batch_size=16, shuffle=False, verbose=0, **kwargs)
    return done.history["loss"]


def outputs(model, x):
    """Inference outputs as NumPy."""
    return model(x, training=False).numpy()


def same_weights(one, other):
    """Whether all weights of two models are equal to the last bit."""
    pairs = zip(one.weights, other.weights, strict=True)
    return [a.name for a, b in pairs if not np.array_equal(a.numpy(), b.numpy())] == []
