"""Data, sites and tensors for the tests of the APoT quantizer."""

import numpy as np
import tensorflow as tf

from kerasbits.quantizers.base import Site

KERNEL = np.random.default_rng(0).normal(0.02, 0.1, size=(3, 3, 2, 4)).astype(np.float32)
CONV = Site("conv", "kernel", KERNEL.shape, -1)
INPUT = Site("fc", "input", (6,), None)
BATCH = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)


def tensors(state):
    return {name: tf.constant(value) for name, value in state.items()}
