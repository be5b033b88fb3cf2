import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasbits import packed
from kerasbits.maths import bayesian_bits as maths
from kerasbits.quantizers import ranges
from kerasbits.quantizers.base import Site
from kerasbits.quantizers.bayesian_bits import BayesianBits

OPEN = {2: [-6, 6, 6, 6], 4: [6, -6, 6, 6], 8: [6, 6, -6, 6], 16: [6, 6, 6, -6], 32: [6] * 4}
RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 3, 2, 5)).astype(np.float32)
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


def kernel_at(bits, kept=None, w=KERNEL, site=SITE, **config):
    quantizer = BayesianBits(**config)
    state = start(quantizer, site, w)
    state["phi"] = np.array(OPEN[bits], np.float32)
    if kept is not None:
        state["phi_prune"] = np.where(kept, 3, -3).astype(np.float32)
    return quantizer, state


def frozen(quantizer, state, site):
    return {**state, **quantizer.freeze(state, site)}


def input_at(bits, x, **config):
    quantizer = BayesianBits(**config)
    state = start(quantizer, INPUT)
    state["phi"] = np.array(OPEN[bits], np.float32)
    state.update({k: value(v) for k, v in quantizer.observe(x, tensors(state), INPUT).items()})
    return quantizer, state


# Configuration.


@pytest.mark.parametrize(
    "quantizer",
    [
        BayesianBits(),
        BayesianBits(0.5, "const", False, 8, 4, True, "official", 6.0, 1.0, None, False, False),
    ],
)
def test_config_round_trip(quantizer):
    assert BayesianBits.from_config(quantizer.get_config()) == quantizer
    text = keras.saving.serialize_keras_object(quantizer)
    assert text["registered_name"] == "kerasbits>BayesianBits"
    assert keras.saving.deserialize_keras_object(text) == quantizer


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("strength", -1.0), ("strength", float("nan")), ("cost", "macs"), ("prune", 1),
        ("max_bits", 6), ("min_bits", 0), ("signed", 1), ("init", "max"), ("phi", float("inf")),
        ("rate", 3.0), ("rate", 0.0), ("rate", -2.0), ("cutoff", "no"), ("keep_one", None),
        ("noise", 0),
    ],
)  # fmt: skip
def test_wrong_fields(field, wrong):
    with pytest.raises(ValueError, match=f"BayesianBits: expected {field}"):
        BayesianBits(**{field: wrong})


def test_min_bits_above_max_bits():
    with pytest.raises(ValueError, match="min_bits <= max_bits"):
        BayesianBits(min_bits=16, max_bits=8)


def test_variables():
    specs = BayesianBits(rate=4.0, phi=2.0).variables(SITE)
    assert specs["phi"].shape == (4,)
    assert specs["phi_prune"].shape == specs["fixed_mask"].shape == (5,)
    assert {n for n, s in specs.items() if s.trainable} == {"range", "phi", "phi_prune"}
    for name in ("phi", "phi_prune"):
        assert (specs[name].initial, specs[name].rate) == (2.0, 4.0)
    for quantizer, site in (
        (BayesianBits(prune=False), SITE),
        (BayesianBits(), dataclasses.replace(SITE, prunable=False)),
        (BayesianBits(), INPUT),
    ):
        assert not {"phi_prune", "fixed_mask"} & set(quantizer.variables(site))


def test_kernel_range_starts_at_its_largest_magnitude():
    w = np.array([[0.5, -2.0], [1.0, 0.25]], np.float32)
    site = Site(shape=w.shape)
    state = start(BayesianBits(), site, w)
    assert float(ranges.current_range(state)) == 2.0
    assert state["signed"] == 1
    assert start(BayesianBits(), site, abs(w))["signed"] == 0


def test_official_start_is_the_largest_value():
    quantizer = BayesianBits(init="official")
    w = np.array([[0.5, -2.0], [1.0, 0.25]], np.float32)
    site = Site(shape=w.shape)
    for values, beta in ((w, 1.0), (-abs(w), 1.0)):  # nothing positive: 1, as for zeros
        state = start(quantizer, site, values)
        assert float(ranges.current_range(state)) == beta
        assert state["signed"] == 1
    quantizer, state = input_at(8, w, init="official")
    assert (state["range_unit"], state["signed"], state["seen"]) == (1, 1, 1)
    quantizer, state = input_at(8, -abs(w), init="official")
    assert state["seen"] == 0  # no range can be told from nothing positive


# Inference.


@pytest.mark.parametrize("bits", maths.WIDTHS)
def test_inference_uses_the_open_gates(bits):
    quantizer, state = kernel_at(bits, kept=[1, 0, 1, 1, 0])
    y = run(quantizer, KERNEL, state, SITE)
    beta, mask = np.abs(KERNEL).max(), np.array([1, 0, 1, 1, 0])
    step = 2 * float(beta) / (2**bits - 1)
    exact = step * np.rint(np.clip(KERNEL.astype(np.float64), -beta, beta) * (1 - 1e-9) / step)
    assert np.abs(y - exact * mask).max() <= 4e-7 * beta  # float32 sums; no ties in the data
    assert value(quantizer.widths(state, SITE)).tolist() == (bits * mask).tolist()
    np.testing.assert_array_equal(y, run(quantizer, KERNEL, state, SITE))


def test_gates_outside_the_span_are_fixed():
    quantizer, state = kernel_at(32, max_bits=8)
    assert set(value(quantizer.widths(state, SITE))) == {8}
    quantizer, state = kernel_at(2, min_bits=4)
    state["phi"] = np.full(4, -6, np.float32)
    assert set(value(quantizer.widths(state, SITE))) == {4}
    quantizer, state = kernel_at(2, min_bits=8, max_bits=8, cutoff=-2.0)
    first = run(quantizer, KERNEL, state, SITE, training=True, seed=1)
    state["phi_prune"] = np.full(5, 50, np.float32)  # always open
    second = run(quantizer, KERNEL, state, SITE, training=True, seed=2)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(second, run(quantizer, KERNEL, state, SITE))


def test_cutoff_can_be_switched_off():
    seeds = range(40)
    outputs = {}
    for cutoff in (-2.0, None):
        quantizer, state = kernel_at(16, prune=False, cutoff=cutoff)
        state["phi"] = np.array([-2.1, 3, 3, 3], np.float32)
        ys = [run(quantizer, KERNEL, state, SITE, training=True, seed=s) for s in seeds]
        outputs[cutoff] = len({y.tobytes() for y in ys})
    assert outputs[-2.0] == 1  # the first gate is exactly 0, whatever the noise
    assert outputs[None] > 1


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


def start_pair(**config):
    quantizer = BayesianBits(phi=0.5, **config)
    return quantizer, start(quantizer, SITE, KERNEL)


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
    for cost, costs in (("const", [1] * 5), ("bops", [0.25 * b for b in maths.WIDTHS])):
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


# Inputs.


def test_first_batch_sets_the_range():
    quantizer = BayesianBits()
    state = tensors(start(quantizer, INPUT))
    x = ops.convert_to_tensor(np.full((2, 6, 6, 2), -3, np.float32))
    y, updates = quantizer.apply(x, state, INPUT, training=True, seed=1)
    assert float(updates["range_unit"]) == 3
    assert float(updates["signed"]) == float(updates["seen"]) == 1
    np.testing.assert_allclose(value(y), -3, rtol=0.4)  # a sample of the gates, at worst ternary
    y, updates = quantizer.apply(x, state, INPUT, training=False)
    assert updates == {}
    np.testing.assert_allclose(value(y), -3, rtol=1e-6)


def test_unsigned_input_clips_negative_values():
    x = np.abs(RNG.normal(size=(2, 6, 6, 2))).astype(np.float32)
    quantizer, state = input_at(4, x)
    assert not run(quantizer, -x, state, INPUT).any()
    quantizer, state = input_at(4, -x, signed=False)
    assert state["signed"] == 0


# Edges.


@pytest.mark.parametrize("bits", maths.WIDTHS)
@pytest.mark.parametrize("w", [np.zeros((4, 3), np.float32), np.full((4, 3), 0.3, np.float32)])
def test_zero_and_constant_kernels(bits, w):
    site = Site("dense", shape=w.shape)
    quantizer, state = kernel_at(bits, w=w, site=site)
    state = frozen(quantizer, state, site)
    y = run(quantizer, w, state, site)
    np.testing.assert_allclose(y, w, atol=1e-6)  # the constant is the top level
    np.testing.assert_array_equal(quantizer.encode(w, state, site).decode(), y)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("freeze", [True, False])
def test_vanished_range_is_finite(training, freeze):
    quantizer, state = kernel_at(8)
    state["range"] = np.float32(0)
    state = frozen(quantizer, state, SITE) if freeze else state
    state = {k: tf.Variable(v) for k, v in state.items()}
    x = tf.constant(KERNEL)
    with tf.GradientTape() as tape:
        tape.watch(x)
        held = {k: v * 1.0 for k, v in state.items()}
        y, _ = quantizer.quantize(x, held, SITE, training=training, seed=1)
    names = ["range", "phi", "phi_prune"]
    found = tape.gradient(y, [x, *(state[n] for n in names)], unconnected_gradients="zero")
    assert all(np.isfinite(value(g)).all() for g in found)
    assert np.abs(value(y)).max() <= 1e-7


@pytest.mark.parametrize("freeze", [True, False])
def test_all_channels_pruned(freeze):
    phi = np.array([-9, -5, -4, -7, -8], np.float32)
    for keep_one, expected in ((True, [0, 0, 4, 0, 0]), (False, [0] * 5)):
        quantizer, state = kernel_at(4, keep_one=keep_one)
        state["phi_prune"] = phi
        state = frozen(quantizer, state, SITE) if freeze else state
        assert value(quantizer.widths(state, SITE)).tolist() == expected
        y = run(quantizer, KERNEL, state, SITE)
        assert y.any(axis=(0, 1, 2)).tolist() == [b > 0 for b in expected]
        if freeze:
            tensor = quantizer.encode(KERNEL, state, SITE)
            np.testing.assert_array_equal(tensor.decode(), y)
            assert tensor.bits.tolist() == expected


def test_keep_one_leaves_other_choices_alone():
    for keep_one in (True, False):
        quantizer, state = kernel_at(4, kept=[0, 1, 0, 1, 0], keep_one=keep_one)
        assert value(quantizer.widths(state, SITE)).tolist() == [0, 4, 0, 4, 0]


def test_half_precision_is_computed_in_float32():
    quantizer, state = kernel_at(8)
    half = ops.cast(KERNEL, "float16")
    y, _ = quantizer.quantize(half, tensors(state), SITE)
    assert y.dtype == half.dtype
    wide, _ = quantizer.quantize(ops.cast(half, "float32"), tensors(state), SITE)
    np.testing.assert_array_equal(value(y), value(wide).astype(np.float16))


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
