"""Play the host: make the state a quantizer declares, and run it."""

import numpy as np
from keras import ops


def initial_state(quantizer, site, w=None) -> dict[str, np.ndarray]:
    """The declared variables at their initial values."""
    state = {}
    for name, spec in quantizer.variables(site).items():
        value = spec.initial(np.asarray(w, np.float32)) if callable(spec.initial) else spec.initial
        state[name] = np.broadcast_to(np.asarray(value, np.float32), spec.shape).copy()
    return state


def updated(state, updates) -> dict[str, np.ndarray]:
    """The state after a host assigned `updates`."""
    assert set(updates) <= set(state)
    new = {name: np.asarray(ops.convert_to_numpy(value)) for name, value in updates.items()}
    assert all(new[name].shape == state[name].shape for name in new)
    return {**state, **new}


def infer(quantizer, x, state, site) -> np.ndarray:
    """`quantize(training=False)` as NumPy."""
    tensors = {name: ops.convert_to_tensor(value) for name, value in state.items()}
    return ops.convert_to_numpy(quantizer.quantize(ops.convert_to_tensor(x), tensors, site)[0])


def ulp_of_top(values) -> float:
    """Spacing of float32 at the largest magnitude of `values`."""
    return float(np.spacing(np.float32(np.max(np.abs(values)))))
