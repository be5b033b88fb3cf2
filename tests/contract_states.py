"""Data, states and runs for the contract of the quantizers."""

import numpy as np
import tensorflow as tf
from keras import ops
from quantizer_states import initial_state, updated

from kerasbits.quantizers import Site

RNG = np.random.default_rng(0)
WEIGHTS = {
    "conv": RNG.normal(0, 0.2, (3, 3, 2, 5)).astype(np.float32),
    "dense": RNG.normal(0.1, 1, (7, 4)).astype(np.float32),
    "positive": np.abs(RNG.normal(0, 1, (6, 3))).astype(np.float32),
    "single": np.float32([[0.7]]),
}
INPUTS = {
    "signed": RNG.normal(0, 2, (64, 6)).astype(np.float32),
    "relu": np.maximum(RNG.normal(0, 1, (64, 6)), 0).astype(np.float32),
}


def site_of(role, data):
    if role == "kernel":
        return Site("block/fc", "kernel", data.shape, -1, macs=data.size, share=0.25)
    return Site("block/fc", "input", data.shape[1:], None, macs=24, share=0.25)


def scattered(quantizer, site, state, spread=0.7):
    """Trainable state far from where it started, as training might leave it; shapes all reached."""
    rng = np.random.default_rng(7)
    state = dict(state)
    for name, spec in quantizer.variables(site).items():
        if spec.trainable:
            value = state[name]
            move = (
                rng.normal(0, spread * np.maximum(1, np.abs(value)), value.shape) * spec.rate**0.5
            )
            low = -np.inf if spec.min is None else spec.min
            high = np.inf if spec.max is None else spec.max
            state[name] = np.clip(value + move, low, high).astype(np.float32)
    return state


def prepared(quantizer, role, data, stage):
    """Site and state of the stage, inputs having seen a batch."""
    site = site_of(role, data)
    state = initial_state(quantizer, site, data)
    if role == "input":
        state = updated(state, quantizer.observe(ops.convert_to_tensor(data), state, site))
    if stage == "scattered":
        state = scattered(quantizer, site, state)
    return site, state


def frozen(quantizer, site, state):
    return updated(state, quantizer.freeze(state, site))


def run(quantizer, x, state, site, mode="eager", **kwargs):
    """`quantize` as NumPy, eagerly, in a graph or compiled; updates too."""
    tensors = {name: tf.constant(value) for name, value in state.items()}

    def step(x, state):
        return quantizer.quantize(x, state, site, **kwargs)

    if mode != "eager":
        step = tf.function(step, jit_compile=mode == "jit")
    y, updates = step(tf.constant(x), tensors)
    return y.numpy(), {name: np.asarray(value) for name, value in updates.items()}


def ulps(values, axis=None):
    """Spacing of float32 at the top level."""
    return np.spacing(np.max(np.abs(values), axis=axis, keepdims=True).astype(np.float32))


def whole_tensor_close(got, want, count):
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=count * float(ulps(want).max()))
