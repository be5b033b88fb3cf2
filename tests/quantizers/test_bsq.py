"""The BSQ quantizer: planes, adjustment, freezing, packed codes."""

import golden_files
import keras
import numpy as np
import pytest
from quantizer_states import initial_state
from quantizers.bsq_for_tests import begun, drifted, forward, tensors, weights

from kerasbits.quantizers.base import Site
from kerasbits.quantizers.bsq import BSQ

GOLDEN = golden_files.load("bsq")
CASES = golden_files.cases(GOLDEN, "bits__", "rq_Z")
ULP = np.finfo(np.float32).eps


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
    state = initial_state(q, site, w)
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
