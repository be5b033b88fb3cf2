"""Tiny models and data for the tests of the Keras host."""

import keras
import numpy as np

from kerasbits.layers import QuantConv2D, QuantDense
from kerasbits.quantizers import NAMES, Uniform

METHODS = {name: method() for name, method in NAMES.items()}
"""Every method as its short name gives it."""

CLASSES = 3


def inputs_like(method):
    """The method itself where it works on inputs, else the plain one."""
    return method if "input" in method.roles else Uniform()


def batch(shape=(6,), count=16, seed=0):
    """Inputs and labels of a problem that can be learned."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, *shape)).astype(np.float32)
    y = (x.reshape(count, -1)[:, :CLASSES]).argmax(axis=-1)
    return x, y


def dense_model(kernel=None, inputs=None, seed=1):
    """Two dense layers, 6 -> 5 -> 3."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6,)),
            QuantDense(5, "relu", kernel_quantizer=kernel, input_quantizer=inputs, name="first"),
            QuantDense(CLASSES, kernel_quantizer=kernel, input_quantizer=inputs, name="last"),
        ],
        name="dense_model",
    )


def mixed_model(kernel=None, inputs=None, seed=1):
    """A convolution, batch norm and a dense layer, on 5x5x2 images."""
    keras.utils.set_random_seed(seed)
    quantizers = {"kernel_quantizer": kernel, "input_quantizer": inputs}
    return keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            QuantConv2D(4, 3, **quantizers, name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.ReLU(name="relu"),
            keras.layers.Flatten(name="flat"),
            QuantDense(CLASSES, **quantizers, name="fc"),
        ],
        name="mixed_model",
    )


def compiled(model, optimizer=None, **kwargs):
    """The model, ready to be trained on `batch`: eagerly, as tracing takes longer than training."""
    kwargs = {"run_eagerly": True, "jit_compile": False, **kwargs}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.Adam(0.01), loss, **kwargs)
    return model


def predict(model, x):
    """Inference outputs as NumPy."""
    return keras.ops.convert_to_numpy(model(x, training=False))
