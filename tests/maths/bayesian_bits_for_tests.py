"""Numbers and conversions for the tests of Bayesian Bits."""

import numpy as np
from keras import ops

CUTOFF = -2.0  # of the code that made the vectors
KAPPA = 1 - 1e-7
GATES = {2: [0, 0, 0, 0], 4: [1, 0, 0, 0], 8: [1, 1, 0, 0], 16: [1, 1, 1, 0], 32: [1, 1, 1, 1]}


def tensor(x, dtype="float64"):
    return ops.convert_to_tensor(np.asarray(x), dtype)


def value(x):
    return ops.convert_to_numpy(x)


def normal(shape, seed=0, scale=0.6):
    return np.random.default_rng(seed).normal(size=shape) * scale
