"""Least squares binary quantization, run by the names of the reference file."""

import numpy as np
import tensorflow as tf
from keras import ops

from kerasbits.maths import least_squares as ls

NAMES = {"ls1": ("ls1", 1), "ls2": ("ls2", 2), "lsT": ("lst", 2)} | {
    f"gf{k}": ("gf", k) for k in range(1, 17)
}


def tensor(x, dtype="float64"):
    return ops.convert_to_tensor(np.asarray(x), dtype)


def quantized(x, name, scales=None, g=None, dtype="float64"):
    """Scales, values and gradient of rows under a scheme of the reference file."""
    scheme, k = NAMES[name]
    x = tensor(x, dtype)
    g = ops.ones_like(x) if g is None else tensor(g, dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        scales = ls.solve(x, scheme, k) if scales is None else tensor(scales, dtype)
        planes = ls.planes_of(scales, scheme, 2, 0)
        q = ls.binarize(x, planes)
    dx = tape.gradient(q, x, g)
    planes = np.concatenate([v.numpy() for v in planes], axis=-1)
    return planes, q.numpy(), dx.numpy()


def sse(x, q):
    return np.sum((np.float64(x) - q) ** 2, axis=-1)


def random_rows(seed=0, rows=8, n=40):
    return np.random.default_rng(seed).normal(size=(rows, n))
