"""States of the BSQ quantizer, as a host and some training would leave them."""

import numpy as np
from keras import ops
from quantizer_states import initial_state

from kerasbits.quantizers.base import Site
from kerasbits.quantizers.bsq import BSQ


def weights(shape=(3, 3, 4, 5), seed=0):
    return (0.3 * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def begun(q=None, w=None):
    """A quantizer, its site, and the state of random or given weights."""
    q = q or BSQ()
    w = weights() if w is None else np.asarray(w, np.float32)
    site = Site("conv", shape=w.shape)
    return q, site, initial_state(q, site, w)


def drifted(q, site, state, seed=1, amount=0.3):
    """The state after some imagined training."""
    rng = np.random.default_rng(seed)
    moved = {
        name: np.clip(state[name] + amount * rng.normal(size=state[name].shape), 0, 2)
        for name in ("positive", "negative")
    }
    return {**state, **{name: value.astype(np.float32) for name, value in moved.items()}}


def tensors(state):
    return {name: ops.convert_to_tensor(value) for name, value in state.items()}


def forward(q, site, state):
    y, updates = q.apply(None, tensors(state), site, training=False)
    assert updates == {}
    return ops.convert_to_numpy(y)
