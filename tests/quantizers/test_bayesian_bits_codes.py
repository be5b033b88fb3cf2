"""The BayesianBits quantizer frozen: output, codes and grids."""

import dataclasses

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
    value,
)

from kerasbits import packed
from kerasbits.maths import bayesian_bits as maths

RNG = np.random.default_rng(1)


# Freezing.


@pytest.mark.parametrize("bits", maths.WIDTHS)
@pytest.mark.parametrize("sign", [1, 0])
def test_freezing_keeps_the_output(bits, sign):
    w = KERNEL if sign else np.abs(KERNEL)
    quantizer, state = kernel_at(bits, kept=[1, 0, 1, 0, 1], w=w)
    assert state["signed"] == sign
    before = run(quantizer, w, state, SITE)
    fixed = frozen(quantizer, state, SITE)
    after = run(quantizer, w, fixed, SITE)
    beta = np.abs(w).max()
    # The same code, and float32 sums that differ by two ulps of beta; in 16 bits a residual may
    # round the other way for a few elements, by one step.
    step = beta * (1 + sign) / (2**bits - 1)
    same = np.abs(after - before) <= 3e-7 * beta
    assert same.mean() >= (0.98 if bits == 16 else 1.0)
    assert np.abs(after - before).max() <= step + 3e-7 * beta
    np.testing.assert_array_equal(quantizer.widths(fixed, SITE), quantizer.widths(state, SITE))
    assert quantizer.freeze(fixed, SITE) == {}


def test_frozen_gates_never_open_again():
    quantizer, state = kernel_at(4, kept=[1, 1, 0, 1, 1])
    fixed = frozen(quantizer, state, SITE)
    y, bits = run(quantizer, KERNEL, fixed, SITE), value(quantizer.widths(fixed, SITE))
    fixed["phi"], fixed["phi_prune"] = np.full(4, 9, np.float32), np.full(5, 9, np.float32)
    np.testing.assert_array_equal(run(quantizer, KERNEL, fixed, SITE), y)
    np.testing.assert_array_equal(quantizer.widths(fixed, SITE), bits)
    # Deterministic in training too, whatever the noise.
    for seed in (1, 2):
        np.testing.assert_array_equal(
            run(quantizer, KERNEL, fixed, SITE, training=True, seed=seed), y
        )


def test_frozen_range_is_still_learned():
    quantizer, state = kernel_at(4)
    fixed = {k: tf.Variable(v) for k, v in frozen(quantizer, state, SITE).items()}
    x = tf.constant(KERNEL)
    with tf.GradientTape() as tape:
        tape.watch(x)
        held = {k: v * 1.0 for k, v in fixed.items()}
        y, _ = quantizer.quantize(x, held, SITE, training=True, seed=1)
        total = tf.reduce_sum(y * tf.constant(RNG.normal(size=KERNEL.shape), tf.float32))
    g_range, g_x, g_phi = tape.gradient(
        total, [fixed["range"], x, fixed["phi"]], unconnected_gradients="zero"
    )
    assert float(g_range) != 0
    assert value(g_x).any()
    assert not value(g_phi).any()


def test_freeze_refuses_nan():
    quantizer, state = kernel_at(4)
    for name in ("phi", "phi_prune"):
        broken = {**state, name: state[name] * np.nan}
        with pytest.raises(ValueError, match=f"layer 'conv'.*{name}"):
            quantizer.freeze(broken, SITE)


# Encoding.


@pytest.mark.parametrize("bits", maths.WIDTHS)
@pytest.mark.parametrize("signed", [None, True, False])
@pytest.mark.parametrize("prune", [True, False])
def test_codes_are_those_of_the_forward_pass(bits, signed, prune):
    kept = [0, 1, 1, 0, 1] if prune else None
    quantizer, state = kernel_at(bits, kept, signed=signed, prune=prune)
    state["range"] = np.float32(0.37)  # some values are clipped
    state = frozen(quantizer, state, SITE)
    tensor = quantizer.encode(KERNEL, state, SITE)
    y = run(quantizer, KERNEL, state, SITE)
    np.testing.assert_array_equal(tensor.decode(), y)  # the same float32 product
    assert tensor.shape == KERNEL.shape
    assert tensor.channel_axis == 3
    np.testing.assert_array_equal(tensor.bits, bits * np.array(kept or [1] * 5))
    np.testing.assert_array_equal(tensor.bits, np.broadcast_to(quantizer.widths(state, SITE), 5))
    if bits == 32:
        assert isinstance(tensor.encoding, packed.Floats)
        return
    zero = 0 if signed is False else 2 ** (bits - 1) - 1
    assert tensor.encoding.zero.tolist() == [zero]
    live = tensor.codes[..., tensor.bits > 0]
    assert live.max() == (2**bits - 2 if zero else 2**bits - 1)
    assert live.min() == 0
    assert not tensor.codes[..., tensor.bits == 0].any()


def test_channel_axis_of_depthwise_kernels():
    site = dataclasses.replace(SITE, channel_axis=-2, shape=(3, 3, 5, 2))
    w = KERNEL.reshape(3, 3, 5, 2)
    quantizer, state = kernel_at(4, kept=[1, 0, 1, 1, 1], w=w, site=site)
    state = frozen(quantizer, state, site)
    tensor = quantizer.encode(w, state, site)
    assert tensor.bits.tolist() == [4, 0, 4, 4, 4]
    np.testing.assert_array_equal(tensor.decode(), run(quantizer, w, state, site))
    assert not tensor.decode()[:, :, 1].any()


def test_encode_and_grid_come_after_freeze():
    quantizer, state = kernel_at(4)
    with pytest.raises(ValueError, match=r"layer 'conv'.*freeze"):
        quantizer.encode(KERNEL, state, SITE)
    quantizer, state = input_at(4, np.ones((2, 6, 6, 2), np.float32))
    with pytest.raises(ValueError, match=r"layer 'conv'.*freeze"):
        quantizer.grid(state, INPUT)
    state = start(quantizer, INPUT)
    with pytest.raises(ValueError, match=r"layer 'conv'.*range"):
        quantizer.grid(frozen(quantizer, state, INPUT), INPUT)


def test_encode_refuses_nan():
    quantizer, state = kernel_at(4)
    w = KERNEL.copy()
    w[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="layer 'conv'"):
        quantizer.encode(w, frozen(quantizer, state, SITE), SITE)


@pytest.mark.parametrize("bits", maths.WIDTHS)
@pytest.mark.parametrize("sign", [1, 0])
def test_input_grid_rounds_as_the_forward_pass(bits, sign):
    x = RNG.normal(size=(8, 6, 6, 2)).astype(np.float32)
    x = x if sign else np.maximum(x, 0)
    quantizer, state = input_at(bits, x)
    assert state["signed"] == sign
    state["range"] = np.float32(0.71)
    state = frozen(quantizer, state, INPUT)
    grid = quantizer.grid(state, INPUT)
    edges = np.array([grid.lo, grid.hi, 9, -9, 0], np.float32)
    x = np.concatenate([x.reshape(-1), edges])
    y = run(quantizer, x, state, INPUT)
    if bits == 32:
        assert isinstance(grid, packed.FloatGrid)
        np.testing.assert_array_equal(np.clip(x, np.float32(grid.lo), np.float32(grid.hi)), y)
        return
    codes = grid.codes(x)
    np.testing.assert_array_equal(grid.values(codes), y)
    assert codes.max() == (2**bits - 2 if sign else 2**bits - 1)
    assert grid.zero == codes[-1] == (2 ** (bits - 1) - 1 if sign else 0)
    assert grid.bits == float(quantizer.widths(state, INPUT)) == bits
    assert grid.lo == (-grid.hi if sign else 0)
    # Inputs far outside are not near a border between codes.
    assert grid.border_distance(np.array([9.0])) >= 0.49 * grid.step
