"""Data and states for the tests of the BayesianBits quantizer."""

import numpy as np
from keras import ops

from kerasbits.quantizers.base import Site
from kerasbits.quantizers.bayesian_bits import BayesianBits

OPEN = {2: [-6, 6, 6, 6], 4: [6, -6, 6, 6], 8: [6, 6, -6, 6], 16: [6, 6, 6, -6], 32: [6] * 4}
KERNEL = np.random.default_rng(0).normal(size=(3, 3, 2, 5)).astype(np.float32)
SITE = Site("conv", "kernel", KERNEL.shape, -1, macs=100)
INPUT = Site("conv", "input", (6, 6, 2), None, macs=100)


def value(x):
    return ops.convert_to_numpy(x)


def start(quantizer, site, w=None):
    """Initial state, as a host would create it."""
    state = {}
    for name, spec in quantizer.variables(site).items():
        initial = spec.initial(w) if callable(spec.initial) else spec.initial
        state[name] = np.broadcast_to(np.asarray(initial, np.float32), spec.shape).copy()
    return state


def tensors(state):
    return {k: ops.convert_to_tensor(v) for k, v in state.items()}


def run(quantizer, x, state, site, **kwargs):
    return value(quantizer.quantize(ops.convert_to_tensor(x), tensors(state), site, **kwargs)[0])


def frozen(quantizer, state, site):
    return {**state, **quantizer.freeze(state, site)}


def kernel_at(bits, kept=None, w=KERNEL, site=SITE, **config):
    quantizer = BayesianBits(**config)
    state = start(quantizer, site, w)
    state["phi"] = np.array(OPEN[bits], np.float32)
    if kept is not None:
        state["phi_prune"] = np.where(kept, 3, -3).astype(np.float32)
    return quantizer, state


def input_at(bits, x, **config):
    quantizer = BayesianBits(**config)
    state = start(quantizer, INPUT)
    state["phi"] = np.array(OPEN[bits], np.float32)
    state.update({k: value(v) for k, v in quantizer.observe(x, tensors(state), INPUT).items()})
    return quantizer, state
