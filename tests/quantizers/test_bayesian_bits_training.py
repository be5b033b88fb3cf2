"""The BayesianBits quantizer in training: noise, gradients, loss and graphs."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from quantizers.bayesian_bits_for_tests import (
    INPUT,
    KERNEL,
    SITE,
    frozen,
    input_at,
    kernel_at,
    run,
    start,
    tensors,
    value,
)

from kerasbits.maths import bayesian_bits as maths
from kerasbits.quantizers.base import Site
from kerasbits.quantizers.bayesian_bits import BayesianBits

RNG = np.random.default_rng(1)


def start_pair(**config):
    quantizer = BayesianBits(phi=0.5, **config)
    return quantizer, start(quantizer, SITE, KERNEL)


# Training.


def test_training_needs_a_seed():
    quantizer, state = kernel_at(8)
    with pytest.raises(ValueError, match=r"layer 'conv', kernel: expected a seed"):
        run(quantizer, KERNEL, state, SITE, training=True)
    quantizer, state = kernel_at(8, noise=False)
    a, b = (run(quantizer, KERNEL, state, SITE, training=True) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_training_is_random_and_repeatable():
    quantizer, state = start_pair()
    a, b = (keras.random.SeedGenerator(7) for _ in range(2))
    first = [run(quantizer, KERNEL, state, SITE, training=True, seed=a) for _ in range(2)]
    second = [run(quantizer, KERNEL, state, SITE, training=True, seed=b) for _ in range(2)]
    assert not np.array_equal(*first)
    np.testing.assert_array_equal(first, second)


def test_one_draw_for_the_whole_batch():
    quantizer = BayesianBits(phi=0.5)
    row = RNG.normal(size=(1, 6, 6, 2)).astype(np.float32)
    _, state = input_at(8, row)
    state["phi"] = np.full(4, 0.5, np.float32)
    y = run(quantizer, np.repeat(row, 4, 0), state, INPUT, training=True, seed=3)
    assert (y == y[:1]).all()


def test_channels_have_noise_of_their_own():
    quantizer, state = start_pair()
    y = run(quantizer, KERNEL, state, SITE, training=True, seed=5)
    state["phi_prune"][:] = 50
    whole = run(quantizer, KERNEL, state, SITE, training=True, seed=5)
    with np.errstate(invalid="ignore"):
        gates = np.nanmean(y / np.where(whole == 0, np.nan, whole), axis=(0, 1, 2))
    assert len(np.unique(gates.round(5))) > 2
    np.testing.assert_allclose(y, gates * whole, atol=1e-6)  # one factor a channel


def test_all_trainable_state_gets_a_gradient():
    quantizer, state = start_pair()
    state = {k: tf.Variable(v) for k, v in state.items()}
    x = tf.constant(KERNEL)
    names = ["phi", "phi_prune", "range"]
    with tf.GradientTape() as tape:
        tape.watch(x)
        held = {k: v * 1.0 for k, v in state.items()}
        # Noise-free gates are inside (0, 1) at phi = 0.5, so each must have a gradient.
        y, _ = dataclasses.replace(quantizer, noise=False).quantize(x, held, SITE, training=True)
        total = tf.reduce_sum(y**2)
    for g in tape.gradient(total, [x, *(state[n] for n in names)]):
        assert np.isfinite(value(g)).all()
        assert value(g).any()


# Loss.


def test_loss_by_hand():
    w = np.ones((3, 2), np.float32)
    site = Site(shape=(3, 2), macs=50, share=0.25)
    on = 1 / (1 + np.exp(-(0.7 + 1.598597)))  # P(z > 0) at phi = 0.7
    for cost, costs in (("const", [0.25] * 5), ("bops", [0.25 * b for b in maths.WIDTHS])):
        for prune in (True, False):
            quantizer = BayesianBits(0.1, cost, prune, phi=0.7)
            first = on * costs[0] if prune else 1.0
            factor = on if prune else 1.0
            tail = sum(c * on**k for k, c in enumerate(costs[1:], 1))
            got = quantizer.loss(tensors(start(quantizer, site, w)), site)
            assert float(got) == pytest.approx(0.1 * (first + factor * tail), rel=1e-5)


def test_share_is_relative_to_the_largest_layer():
    quantizer = BayesianBits()
    sites = [Site(macs=m) for m in (0, 20, 80)]
    assert [quantizer.share(s, sites) for s in sites] == [0, 0.25, 1]
    none = [Site(), Site()]
    assert quantizer.share(none[0], none) == 1
    assert BayesianBits(cost="const").share(sites[0], sites) == 1


def test_loss_is_silent_once_frozen():
    quantizer, state = kernel_at(8)
    state = {k: tf.Variable(v) for k, v in frozen(quantizer, state, SITE).items()}
    with tf.GradientTape() as tape:
        loss = quantizer.loss({k: v * 1.0 for k, v in state.items()}, SITE)
    assert float(loss) == 0
    gradients = tape.gradient(loss, [state["phi"], state["phi_prune"]])
    assert not any(value(g).any() for g in gradients)


def test_strong_loss_closes_gates():
    # Adam at 1e-3 on stored values phi / 8: phi moves by up to 8e-3 a step.
    quantizer = BayesianBits(strength=10.0, phi=0.0)
    start_values = start(quantizer, SITE, KERNEL)
    rates = {n: s.rate for n, s in quantizer.variables(SITE).items()}
    names = ["phi", "phi_prune", "range"]
    variables = {n: keras.Variable(start_values[n] / rates[n]) for n in names}
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(list(variables.values()))
    seed = keras.random.SeedGenerator(1)
    x = tf.constant(KERNEL)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            state = {**tensors(start_values), **{n: variables[n] * rates[n] for n in names}}
            y, _ = quantizer.quantize(x, state, SITE, training=True, seed=seed)
            loss = tf.reduce_mean((y - x) ** 2) + quantizer.loss(state, SITE)
        watched = [v.value for v in variables.values()]
        optimizer.apply(tape.gradient(loss, watched), list(variables.values()))

    def bits():
        values = {n: value(variables[n]) * rates[n] for n in names}
        return value(quantizer.widths({**start_values, **values}, SITE))

    assert bits().tolist() == [32] * 5
    for _ in range(150):
        step()
    # All closed; of the channels one is kept.
    assert sorted(bits()) == [0, 0, 0, 0, 2]


# Graphs.


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("freeze", [False, True])
def test_graph_and_xla(jit, training, freeze):
    # Without noise, as TensorFlow's random numbers under XLA are others than in eager mode.
    quantizer, state = kernel_at(8, kept=[1, 0, 1, 1, 1], noise=False)
    state["phi"] = np.array([1.0, 0.5, 0.5, -3.0], np.float32)
    state = frozen(quantizer, state, SITE) if freeze else state

    def step(x, state):
        with tf.GradientTape() as tape:
            tape.watch([x, state["range"], state["phi"]])
            y, _ = quantizer.quantize(x, state, SITE, training=training)
            total = tf.reduce_sum(y**2) + quantizer.loss(state, SITE)
        variables = [x, state["range"], state["phi"]]
        return y, *tape.gradient(total, variables, unconnected_gradients="zero")

    args = tf.constant(KERNEL), tensors(state)
    for got, expected in zip(tf.function(step, jit_compile=jit)(*args), step(*args), strict=True):
        # XLA may multiply by the reciprocal of a step: some ulps, and in sums some more.
        scale = max(1.0, np.abs(value(expected)).max())
        np.testing.assert_allclose(value(got), value(expected), rtol=0, atol=2e-5 * scale)


def test_graph_with_a_seed_generator_draws_anew():
    quantizer, state = start_pair()
    seed = keras.random.SeedGenerator(2)

    @tf.function(jit_compile=True)
    def forward(x):
        return quantizer.quantize(x, tensors(state), SITE, training=True, seed=seed)[0]

    x = tf.constant(KERNEL)
    assert not np.array_equal(value(forward(x)), value(forward(x)))
