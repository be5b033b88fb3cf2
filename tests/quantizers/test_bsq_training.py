"""The BSQ quantizer in training: gradients, one trace, and what the lasso does."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from quantizers.bsq_for_tests import begun, drifted, forward, tensors, weights

from kerasbits.quantizers.bsq import BSQ


@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_reach_only_what_is_in_use(frozen):
    q, site, state = begun(BSQ(bits=3, max_bits=5))
    if frozen:
        state |= q.freeze(state, site)
    state = drifted(q, site, state)
    state = tensors(state)
    trained = {k: state[k] for k in ("positive", "negative", "scale", "latent")}
    g = tf.constant(weights(seed=7))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(trained)
        y, _ = q.quantize(None, state, site, training=True)
        loss = q.loss(state, site)
    grads = tape.gradient(y, trained, g, unconnected_gradients="zero")
    lasso = tape.gradient(loss, trained, unconnected_gradients="zero")
    z = np.rint(np.asarray(y) / (float(state["scale"]) / 7))
    np.testing.assert_allclose(grads["scale"], np.sum(g * z) / 7, rtol=1e-4)
    for name, sign in (("positive", 1), ("negative", -1)):
        assert np.all(np.asarray(grads[name])[3:] == 0)  # masked planes
        assert np.all(np.asarray(lasso[name])[3:] == 0)
        if frozen:
            assert not np.any(grads[name])
            assert not np.any(lasso[name])
        else:
            scale = sign * float(state["scale"]) / 7
            expected = [scale * 2**b * np.asarray(g) for b in range(3)]
            np.testing.assert_allclose(np.asarray(grads[name])[:3], expected, rtol=1e-5)
            assert np.any(lasso[name])
    latent = float(state["scale"]) * np.asarray(g) if frozen else np.zeros(g.shape)
    np.testing.assert_allclose(grads["latent"], latent, rtol=1e-5)


@pytest.mark.parametrize("jit", [False, True])
def test_freezing_and_dropping_do_not_retrace(jit):
    q, site, state = begun(BSQ(bits=4))
    traces = []

    @tf.function(jit_compile=jit)
    def step(state):
        traces.append(1)
        trained = {k: state[k] for k in ("positive", "negative", "scale", "latent")}
        with tf.GradientTape() as tape:
            tape.watch(trained)
            y, _ = q.quantize(None, state, site, training=True)
            loss = tf.reduce_sum(y**2) + q.loss(state, site)
        return y, tape.gradient(loss, trained)

    moved = drifted(q, site, state)
    for update in ({}, q.adjust(moved, site), q.freeze(moved, site)):
        now = {**moved, **update}
        y, grads = step(tensors(now))
        # Sums in another order: some ulps.
        np.testing.assert_allclose(y, forward(q, site, now), rtol=1e-5, atol=1e-6)
        assert all(np.isfinite(g).all() for g in grads.values())
        assert np.any(grads["latent"]) == ("fixed_bits" in update)
    assert len(traces) == 1


def sgd(q, site, state, steps, lr, target=None):
    """Plain gradient steps with the constraints of a host; the loss of data is optional."""
    specs = q.variables(site)

    @tf.function
    def gradients(state):
        trained = {k: state[k] for k in ("positive", "negative", "scale")}
        with tf.GradientTape() as tape:
            tape.watch(trained)
            loss = q.loss(state, site)
            if target is not None:
                y, _ = q.quantize(None, state, site, training=True)
                loss += tf.reduce_sum((y - target) ** 2)
        return tape.gradient(loss, trained, unconnected_gradients="zero")

    for _ in range(steps):
        for name, grad in gradients(tensors(state)).items():
            value = state[name] - lr * grad.numpy()
            low = -np.inf if specs[name].min is None else specs[name].min
            high = np.inf if specs[name].max is None else specs[name].max
            state[name] = np.clip(value, low, high).astype(np.float32)
            assert low <= state[name].min()
            assert state[name].max() <= high
    return state


def test_lasso_alone_empties_the_layer():
    q, site, state = begun(BSQ(bits=4, strength=1.0), weights((4, 3)))
    widths = []
    for _ in range(6):
        # Fewer steps would not carry a bit below 1/2, and adjusting would set it back to 1.
        state = sgd(q, site, state, 100, 0.02)
        state |= q.adjust(state, site)
        widths.append(int(state["precision"]))
    assert widths[-1] == 0
    np.testing.assert_array_equal(forward(q, site, state), 0)
    state = sgd(q, site, state, 5, 0.01)
    state |= q.adjust(state, site)
    assert int(state["precision"]) == 0  # nothing grows back
    np.testing.assert_array_equal(q.encode(None, state, site).bits, 0)


def test_without_lasso_the_width_stays():
    q, site, state = begun(BSQ(bits=4, strength=0.0), weights((4, 3)))
    before = forward(q, site, state)
    state = sgd(q, site, state, 20, 0.01, target=tf.constant(before))
    state |= q.adjust(state, site)
    assert int(state["precision"]) == 4
    np.testing.assert_allclose(forward(q, site, state), before, rtol=1e-5)


def test_lasso_trades_width_for_error():
    """Weights on a coarse grid plus a little noise: the noise bits go, the coarse ones stay."""
    rng = np.random.default_rng(8)
    coarse = rng.integers(-3, 4, (6, 5)) * 32.0
    w = ((coarse + rng.integers(0, 2, (6, 5))) / 97).astype(np.float32)
    q, site, state = begun(BSQ(bits=7, strength=0.03), w)
    target = tf.constant(coarse.astype(np.float32) / 97)
    state = sgd(q, site, state, 500, 0.05, target=target)
    state |= q.adjust(state, site)
    assert 2 <= int(state["precision"]) < 7
    np.testing.assert_allclose(forward(q, site, state), target, atol=0.05)


def test_adam_empties_a_bit_within_250_steps():
    """The documented meaning of `rate`: a stored value moves by lr, the value by lr * rate."""
    rate = BSQ().rate
    stored = keras.Variable(np.float32([1.0 / rate]))
    optimizer = keras.optimizers.Adam(1e-3)
    for _ in range(250):
        optimizer.apply([ops.ones_like(stored) * 1e-3], [stored])
    # Adam's epsilon takes a little of each step.
    np.testing.assert_allclose(stored.numpy()[0] * rate, 0, atol=1e-3)
