"""Data, sites and states for the tests of the BitPruning quantizer."""

import numpy as np
import tensorflow as tf
from quantizer_states import updated

from kerasbits.quantizers.base import Site

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype(np.float32)
CONV = Site("conv", "kernel", KERNEL.shape, -1, macs=100)
INPUT = Site("fc", "input", (6,), None, macs=10)
BATCH = np.random.default_rng(1).normal(size=(20, 6)).astype(np.float32)


def tensors(state):
    return {name: tf.constant(value) for name, value in state.items()}


def frozen(quantizer, state, site):
    return updated(state, quantizer.freeze(state, site))
