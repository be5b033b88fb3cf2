"""The BSQ quantizer: planes, adjustment, freezing, packed codes."""

import golden_files
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasbits.quantizers.base import Site
from kerasbits.quantizers.bsq import BSQ

GOLDEN = golden_files.load("bsq")
CASES = golden_files.cases(GOLDEN, "bits__", "rq_Z")
ULP = np.finfo(np.float32).eps


def weights(shape=(3, 3, 4, 5), seed=0):
    return (0.3 * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def start(q, w, site):
    """Initial state as NumPy arrays, like a host makes it."""
    state = {}
    for name, spec in q.variables(site).items():
        value = spec.initial(w) if callable(spec.initial) else spec.initial
        state[name] = np.array(np.broadcast_to(np.float32(value), spec.shape))
    return state


def begun(q=None, w=None):
    """A quantizer, its site, and the state of random or given weights."""
    q = q or BSQ()
    w = weights() if w is None else np.asarray(w, np.float32)
    site = Site("conv", shape=w.shape)
    return q, site, start(q, w, site)


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


def case_state(case, max_bits=8):
    """State of a bits case of the reference file."""
    q = BSQ(bits=1, max_bits=max(max_bits, int(GOLDEN[f"{case}_n"])))
    _, site, state = begun(q, np.zeros_like(GOLDEN[f"{case}_g"]))
    for name, key in (("positive", "wp"), ("negative", "wn")):
        planes = GOLDEN[f"{case}_{key}"]
        state[name][: len(planes)] = planes
    state["scale"] = np.float32(GOLDEN[f"{case}_s"])
    state["precision"] = np.float32(GOLDEN[f"{case}_n"])
    return q, site, state


@pytest.mark.parametrize("q", [BSQ(), BSQ(5, 0.1, 7, 0.5, True)])
def test_config_round_trip(q):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(q))
    assert again == q
    assert BSQ.from_config(q.get_config()) == q


@pytest.mark.parametrize(
    "field",
    [
        {"bits": 0},
        {"bits": 16},
        {"bits": 2.5},
        {"max_bits": 0},
        {"max_bits": 16},
        {"strength": -1.0},
        {"strength": float("nan")},
        {"rate": 3.0},
        {"rate": 0.0},
        {"clamp_forward": 1},
    ],
)
def test_fields_are_checked(field):
    with pytest.raises(ValueError, match=f"expected {next(iter(field))} .*, got"):
        BSQ(**field)


def test_inputs_are_refused():
    with pytest.raises(ValueError, match=r"layer 'conv', input: expected a kernel"):
        BSQ().variables(Site("conv", "input", (4,), None))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_kernels_are_refused(bad):
    w = weights((3, 2))
    w[0, 1] = bad
    for name in ("positive", "negative", "scale", "precision"):
        with pytest.raises(ValueError, match="layer 'fc', kernel: expected a finite kernel"):
            BSQ().variables(Site("fc", shape=w.shape))[name].initial(w)


@pytest.mark.parametrize("name", ["positive", "negative", "scale"])
def test_nan_is_never_made_a_whole_number(name):
    q, site, state = begun()
    state[name] = np.full_like(state[name], np.nan)
    for method in (q.adjust, q.freeze, lambda s, site: q.encode(None, s, site)):
        with pytest.raises(ValueError, match=f"layer 'conv', kernel: expected finite.*{name}"):
            method(state, site)


def test_declared_variables():
    q, site, state = begun(BSQ(bits=10))
    specs = q.variables(site)
    assert state["positive"].shape == (10, *site.shape)  # n_max is at least the width
    for name in ("positive", "negative"):
        assert (specs[name].min, specs[name].max, specs[name].rate) == (0, 2, q.rate)
    assert (specs["latent"].min, specs["latent"].max) == (-1, 1)
    assert (specs["scale"].min, specs["scale"].max) == (None, None)
    assert {n for n, s in specs.items() if not s.trainable} == {"precision", "fixed_bits"}
    assert q.owns_weight


def test_by_hand():
    q, site, state = begun(BSQ(bits=2), [[0.3], [-0.1]])
    np.testing.assert_allclose(forward(q, site, state), [[0.3], [-0.1]], rtol=1e-6)
    tensor = q.encode(None, state, site)
    np.testing.assert_array_equal(tensor.codes, [[6], [2]])
    np.testing.assert_array_equal(tensor.bits, [3])
    assert float(q.widths(state, site)) == 3
    assert float(q.magnitude_bits(state)) == 2
    # Planes of 3 and -1: norms sqrt(2) and 1; share 1, n = 2.
    expected = 5e-3 * 2 * (np.sqrt(2) + 1)
    np.testing.assert_allclose(q.loss(tensors(state), site), expected, rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_reference_adjustment(case):
    q, site, state = case_state(case)
    before = forward(q, site, state)
    # Whole numbers are exact in float32; the scale is rounded.
    np.testing.assert_allclose(before, GOLDEN[f"{case}_fwd"], rtol=4 * ULP, atol=0)
    updates = q.adjust(state, site)
    state |= updates
    assert int(state["precision"]) == int(GOLDEN[f"{case}_tr_n"])
    np.testing.assert_allclose(state["scale"], GOLDEN[f"{case}_tr_s"], rtol=4 * ULP)
    values = 2.0 ** np.arange(len(state["positive"]))
    z = np.tensordot(values, state["positive"] - state["negative"], 1)
    np.testing.assert_array_equal(z, GOLDEN[f"{case}_tr_Z"])
    np.testing.assert_allclose(forward(q, site, state), before, rtol=4 * ULP, atol=0)


def test_reference_model():
    cases = [f"bits__{i}" for i in GOLDEN["model__ids"]]
    made = [case_state(case) for case in cases]
    sites = [site for _, site, _ in made]
    total, bits = 0.0, 0.0
    for (q, site, state), weight in zip(made, GOLDEN["model__weights"], strict=True):
        share = q.share(site, sites)
        n = float(q.magnitude_bits(state))
        np.testing.assert_allclose(share * n, weight, rtol=1e-6)
        shared = Site(site.name, shape=site.shape, share=share)
        total += float(q.loss(tensors(state), shared)) / q.strength
        bits += site.size * n
    np.testing.assert_allclose(total, GOLDEN["model__reg"], rtol=1e-5)  # float32 sums
    parameters = sum(site.size for site in sites)
    np.testing.assert_allclose(32 * parameters / bits, GOLDEN["model__compression"], rtol=1e-12)


@pytest.mark.parametrize("bits", [1, 3, 8, 15])
@pytest.mark.parametrize("axis", [-1, 0])
def test_codes_are_those_of_quantize(bits, axis):
    q = BSQ(bits=bits)
    w = weights()
    site = Site("conv", shape=w.shape, channel_axis=axis)
    state = start(q, w, site)
    moved = drifted(q, site, state)
    states = [state, moved, {**moved, **q.adjust(moved, site)}, {**moved, **q.freeze(moved, site)}]
    for i, s in enumerate(states):
        y = forward(q, site, s)
        tensor = q.encode(w, s, site)
        np.testing.assert_array_equal(tensor.decode(), y)
        assert tensor.codes.dtype == np.uint16
        assert tensor.shape == w.shape
        assert tensor.codes.max() < 2 ** tensor.bits[0]
        assert len(tensor.bits) == w.shape[axis]
        if i != 1:  # before `adjust`, overflowing values take one bit more
            np.testing.assert_array_equal(tensor.bits, float(q.widths(s, site)))
    assert np.abs(w - forward(q, site, state)).max() <= state["scale"] / (2**bits - 1) * 0.5001


def test_adjusting_keeps_weights_and_is_idempotent():
    for seed in range(6):
        q, site, state = begun(BSQ(bits=1 + seed, max_bits=7))
        state = drifted(q, site, state, seed)
        before = forward(q, site, state)
        once = {**state, **q.adjust(state, site)}
        # Only `scale` is rounded.
        np.testing.assert_allclose(forward(q, site, once), before, rtol=4 * ULP, atol=0)
        twice = q.adjust(once, site)
        for name, value in twice.items():
            np.testing.assert_array_equal(value, once[name])
        planes = once["positive"] + once["negative"]
        assert set(np.unique(planes)) <= {0.0, 1.0}
        n = int(once["precision"])
        assert np.all(planes[n:] == 0)
        assert planes[n - 1].any()
        assert planes[0].any()


def test_clamped_forward_jumps_at_most_by_the_excess():
    q, site, state = begun(BSQ(bits=2, clamp_forward=True), [[1.0], [-1.0], [0.4]])
    state["positive"][1, 0] = 2.0  # r = 5, stored as L_2 = 3 in training
    step = float(state["scale"]) / 3
    np.testing.assert_allclose(forward(q, site, state)[0], 3 * step, rtol=1e-6)
    state |= q.adjust(state, site)
    np.testing.assert_allclose(forward(q, site, state)[0], 5 * step, rtol=1e-6)
    assert int(state["precision"]) == 3


def test_negative_scale_moves_into_the_signs():
    q, site, state = begun(BSQ(bits=3))
    state["scale"] = -state["scale"]
    before = forward(q, site, state)
    np.testing.assert_array_equal(q.encode(None, state, site).decode(), before)
    state |= q.adjust(state, site)
    assert state["scale"] > 0
    np.testing.assert_allclose(forward(q, site, state), before, rtol=4 * ULP)


def test_freezing_hands_over_to_the_latent_weight():
    q, site, state = begun(BSQ(bits=4))
    state = drifted(q, site, state)
    before = forward(q, site, state)
    state |= q.freeze(state, site)
    n = float(state["fixed_bits"])
    assert n == float(state["precision"]) == float(q.magnitude_bits(state))
    np.testing.assert_allclose(forward(q, site, state), before, rtol=4 * ULP, atol=0)
    assert np.abs(state["latent"]).max() <= 1
    assert float(q.loss(tensors(state), site)) == 0
    # Frozen: no method changes anything, and planes are not used any more.
    assert q.freeze(state, site) == {}
    assert q.adjust(state, site) == {}
    state["positive"] += 0.7
    np.testing.assert_allclose(forward(q, site, state), before, rtol=4 * ULP, atol=0)
    state["latent"] = np.zeros_like(state["latent"])
    np.testing.assert_array_equal(forward(q, site, state), 0)
    assert float(q.magnitude_bits(state)) == n  # empty planes are not dropped after freezing


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


@pytest.mark.parametrize("shape", [(1, 1), (2, 3)])
@pytest.mark.parametrize("value", [0.0, 0.7, -2.5])
def test_constant_zero_and_single_kernels(shape, value):
    q, site, state = begun(BSQ(bits=4), np.full(shape, value))
    for change in (None, q.adjust, q.freeze):
        state |= change(state, site) if change else {}
        y = forward(q, site, state)
        np.testing.assert_allclose(y, np.full(shape, value), rtol=4 * ULP)
        tensor = q.encode(None, state, site)
        np.testing.assert_array_equal(tensor.decode(), y)
        np.testing.assert_array_equal(tensor.bits, 5 if value else 0)
        assert float(q.widths(state, site)) == (5 if value else 0)
        if not value:
            assert not np.any(tensor.codes)
            assert float(q.loss(tensors(state), site)) == 0


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
