"""The LeastSquaresBinary quantizer: protocol, running averages, packed codes."""

import golden_files
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasbits.packed import PlanesGrid
from kerasbits.quantizers.base import Site
from kerasbits.quantizers.least_squares import LeastSquaresBinary

SCHEMES = [("ls1", 1), ("ls2", 2), ("lst", 2), ("gf", 1), ("gf", 3), ("gf", 5)]
ULP = np.finfo(np.float32).eps


def weights(shape=(3, 3, 4, 5), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def input_site(shape=(6,)):
    return Site(name="conv", role="input", shape=shape, channel_axis=None)


def start(q, site):
    """Initial state as tensors."""
    return {
        name: ops.full(spec.shape, spec.initial, dtype="float32")
        for name, spec in q.variables(site).items()
    }


def run(q, x, state, site, training):
    y, updates = q.apply(ops.convert_to_tensor(x), state, site, training=training)
    return ops.convert_to_numpy(y), {**state, **updates}, updates


def arrays(state):
    return {name: ops.convert_to_numpy(value) for name, value in state.items()}


@pytest.mark.parametrize(
    "q",
    [
        LeastSquaresBinary(),
        LeastSquaresBinary("gf", 4, "tensor", "train_and_eval", 0.5, 3, 2.0),
    ],
)
def test_config_round_trip(q):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(q))
    assert again == q
    assert LeastSquaresBinary.from_config(q.get_config()) == q


@pytest.mark.parametrize(
    "field",
    [
        {"scheme": "ls3"},
        {"k": 0},
        {"k": 17},
        {"k": 2.5},
        {"granularity": "layer"},
        {"running": "on"},
        {"momentum": 1.5},
        {"momentum": -0.1},
        {"subsample": 0},
        {"clamp": 0.0},
        {"clamp": float("nan")},
    ],
)
def test_fields_are_checked(field):
    with pytest.raises(ValueError, match=f"expected .*{next(iter(field))}.*, got"):
        LeastSquaresBinary(**field)


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("axis", [-1, 2, 0])
@pytest.mark.parametrize(("scheme", "k"), SCHEMES)
def test_codes_are_those_of_quantize(scheme, k, axis, granularity):
    w = weights()
    w[..., 1] = 0 if axis != 0 else w[..., 1]
    site = Site("dense", "kernel", w.shape, axis)
    q = LeastSquaresBinary(scheme, k, granularity)
    y, _, updates = run(q, w, {}, site, training=False)
    tensor = q.encode(w, {}, site)
    assert updates == {}
    assert tensor.codes.dtype == np.uint16
    assert tensor.codes.max() < 2**q.planes
    assert tensor.shape == w.shape
    top = np.abs(y).max()
    decoded = tensor.decode()
    np.testing.assert_allclose(decoded, y, rtol=0, atol=4 * ULP * top)
    if scheme in ("ls1", "lst"):  # one doubling, no rounding
        np.testing.assert_array_equal(decoded, y)
    np.testing.assert_array_equal(tensor.bits, np.full(site.channels, q.widths({}, site)))
    # Two elements of a channel have the same code where they have the same value.
    rows_y, rows_c = (np.moveaxis(t, axis, 0).reshape(w.shape[axis], -1) for t in (y, tensor.codes))
    for values, codes in zip(rows_y, rows_c, strict=True):
        pairs = set(zip(values.tolist(), codes.tolist(), strict=True))
        assert len({value for value, _ in pairs}) <= len({code for _, code in pairs})


@pytest.mark.parametrize(("scheme", "k"), SCHEMES)
def test_zero_channel_decodes_to_zero(scheme, k):
    w = weights((4, 3))
    w[:, 1] = 0
    site = Site(shape=w.shape)
    decoded = LeastSquaresBinary(scheme, k).encode(w, {}, site).decode()
    np.testing.assert_array_equal(decoded[:, 1], 0)
    assert np.all(np.abs(decoded[:, [0, 2]]).max(axis=0) > 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (5, 1)])
@pytest.mark.parametrize("value", [0.0, 0.25, -1.5])
@pytest.mark.parametrize(("scheme", "k"), SCHEMES)
def test_constant_and_small_kernels(scheme, k, value, shape):
    w = np.full(shape, value, np.float32)
    site = Site(shape=shape)
    q = LeastSquaresBinary(scheme, k)
    y, _, _ = run(q, w, {}, site, training=True)
    np.testing.assert_allclose(y, w, rtol=4 * ULP)
    np.testing.assert_allclose(q.encode(w, {}, site).decode(), w, rtol=4 * ULP)


def test_kernel_by_hand():
    w = np.float32([[1.0, 2.0], [-3.0, 2.0]])
    site = Site(shape=w.shape)
    y, _, _ = run(LeastSquaresBinary("ls1"), w, {}, site, True)
    np.testing.assert_array_equal(y, [[2.0, 2.0], [-2.0, 2.0]])
    y, _, _ = run(LeastSquaresBinary("ls1", granularity="tensor"), w, {}, site, True)
    np.testing.assert_array_equal(y, [[2.0, 2.0], [-2.0, 2.0]])
    assert LeastSquaresBinary("ls1").variables(site) == {}
    assert LeastSquaresBinary("ls1").freeze({}, site) == {}
    assert LeastSquaresBinary("ls1").loss({}, site) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_encode_refuses_bad_weights(bad):
    w = weights((3, 2))
    w[1, 1] = bad
    with pytest.raises(ValueError, match=r"layer 'fc'.*expected a finite kernel"):
        LeastSquaresBinary().encode(w, {}, Site("fc", shape=w.shape))


def test_clamp_is_for_inputs():
    with pytest.raises(ValueError, match="layer 'fc', kernel: expected clamp=None"):
        LeastSquaresBinary(clamp=2.0).variables(Site("fc", shape=(3, 2)))


# Inputs.

GOLDEN = golden_files.load("least_squares_binary")
NAMES = {"ls1": ("ls1", 1), "ls2": ("ls2", 2), "lsT": ("lst", 2), "gf2": ("gf", 2)}
AVERAGED = sorted(k[len("ema__") : -len("_state")] for k in GOLDEN if k.endswith("_state"))


@pytest.mark.parametrize("running", ["eval_only", "train_and_eval"])
@pytest.mark.parametrize("name", AVERAGED)
def test_reference_running_average(name, running):
    scheme, k = NAMES[name]
    momentum = float(GOLDEN["ema__momentum"])
    q = LeastSquaresBinary(scheme, k, running=running, momentum=momentum)
    batches = GOLDEN["ema__x_train"]
    site = input_site(batches.shape[2:])
    state = calibrated = start(q, site)
    # Float32 against float64; the rows are 2e-5 clear of ties.
    near = {"rtol": 1e-4, "atol": 1e-5}
    for t, batch in enumerate(batches):
        y, state, _ = run(q, batch, state, site, training=True)
        calibrated = q.observe(ops.convert_to_tensor(batch), calibrated, site)
        states = GOLDEN[f"ema__{name}_state"][t][: len(state["scales"])]
        np.testing.assert_allclose(state["scales"], states, **near)
        if running == "train_and_eval":
            np.testing.assert_allclose(y, GOLDEN[f"ema__{name}_q_train_and_eval"][t], **near)
    for key in ("scales", "steps"):
        np.testing.assert_array_equal(calibrated[key], state[key])
    y, _, updates = run(q, GOLDEN["ema__x_eval"], state, site, training=False)
    np.testing.assert_allclose(y, GOLDEN[f"ema__{name}_q_eval"], **near)
    assert updates == {}


def test_average_by_hand():
    q = LeastSquaresBinary("ls1", momentum=0.5)
    site = input_site((2,))
    state = start(q, site)
    y, state, _ = run(q, np.float32([[1, -3], [4, 4]]), state, site, training=True)
    np.testing.assert_array_equal(y, [[2, -2], [4, 4]])  # a scale for each sample
    np.testing.assert_array_equal(state["scales"], [3.0])  # the first batch is copied
    _, state, _ = run(q, np.float32([[5, 5]]), state, site, training=True)
    np.testing.assert_array_equal(state["scales"], [4.0])
    y, _, _ = run(q, np.float32([[1, -3], [9, 0]]), state, site, training=False)
    np.testing.assert_array_equal(y, [[4, -4], [4, 4]])


def test_unseen_input_is_solved_by_sample_and_has_no_grid():
    q = LeastSquaresBinary("ls1")
    site = input_site((2,))
    state = start(q, site)
    y, _, updates = run(q, np.float32([[1, -3], [4, 4]]), state, site, training=False)
    np.testing.assert_array_equal(y, [[2, -2], [4, 4]])
    assert updates == {}
    with pytest.raises(ValueError, match=r"layer 'conv', input: .*calibrate"):
        q.grid(arrays(state), site)
    with pytest.raises(ValueError, match="finite running scales"):
        q.grid({"scales": np.float32([np.nan]), "steps": np.float32(1)}, site)


def test_off_uses_the_average_only_after_calibration():
    q = LeastSquaresBinary("ls1", running="off")
    site = input_site((2,))
    state = start(q, site)
    x = np.float32([[1, -3], [4, 4]])
    y, state, updates = run(q, x, state, site, training=True)
    assert updates == {}
    np.testing.assert_array_equal(y, [[2, -2], [4, 4]])
    with pytest.raises(ValueError, match="calibrate"):
        q.grid(arrays(state), site)
    state = q.observe(ops.convert_to_tensor(x), state, site)
    y, _, _ = run(q, x, state, site, training=False)
    np.testing.assert_array_equal(y, [[3, -3], [3, 3]])
    np.testing.assert_array_equal(q.grid(arrays(state), site).scales, [3.0])
    assert q.observed(site) == sorted(state)
    assert q.observed(Site(shape=(2, 2))) == []


@pytest.mark.parametrize("clamp", [None, 0.7])
@pytest.mark.parametrize(("scheme", "k"), SCHEMES)
def test_grid_is_the_forward_rule(scheme, k, clamp):
    q = LeastSquaresBinary(scheme, k, clamp=clamp)
    site = input_site((5, 4))
    x = weights((16, 5, 4), seed=3)
    state = q.observe(ops.convert_to_tensor(x), start(q, site), site)
    y, _, _ = run(q, x, state, site, training=False)
    grid = q.grid(arrays(state), site)
    assert isinstance(grid, PlanesGrid)
    assert grid.bits == q.widths(state, site)
    np.testing.assert_array_equal(grid.values(grid.codes(x)), y)
    if k <= 2:  # a clip that changes no code is left out
        assert (grid.lo, grid.hi) == (-np.inf, np.inf)
    assert np.all(grid.border_distance(x) >= 0)


def test_clamp_changes_codes_beyond_it_for_three_planes():
    # v_1 + v_2 exceed the clamp, so the third sign of a clipped element is negative.
    q = LeastSquaresBinary("gf", 3, clamp=1.0)
    site = input_site((8,))
    x = np.float32([[3, -3, 1, 1, -1, 1, 0, 0]])
    state = q.observe(ops.convert_to_tensor(x), start(q, site), site)
    scales = np.asarray(state["scales"])
    assert scales[0] + scales[1] > 1
    grid = q.grid(arrays(state), site)
    y, _, _ = run(q, x, state, site, training=False)
    np.testing.assert_array_equal(grid.values(grid.codes(x)), y)
    unclipped = PlanesGrid(grid.scales)
    assert not np.array_equal(unclipped.codes(x), grid.codes(x))


def test_clamp_stops_gradients():
    q = LeastSquaresBinary("ls1", clamp=1.0)
    x = tf.constant([[0.5, -2.0, 1.0, 0.25]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y, _ = q.quantize(x, start(q, input_site((4,))), input_site((4,)), training=True)
    v = (0.5 + 1 + 1 + 0.25) / 4
    np.testing.assert_allclose(tape.gradient(y, x), [[v, 0, v, v]], rtol=1e-6)


def test_gradient_does_not_depend_on_the_mode():
    q = LeastSquaresBinary("ls2", running="train_and_eval")
    site = input_site((6,))
    x = tf.constant(weights((3, 6)))
    state = q.observe(x, start(q, site), site)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y, _ = q.quantize(x, state, site, training=False)
    v1, v2 = np.asarray(state["scales"])
    r = x.numpy()
    d1 = v1 * (np.abs(r) <= 1)
    r = r - np.where(r >= 0, v1, -v1)
    expected = d1 + v2 * (np.abs(r) <= 1) * (1 - d1)
    np.testing.assert_allclose(tape.gradient(y, x), expected, rtol=1e-6)


def test_bad_sample_harms_no_other_and_no_average():
    q = LeastSquaresBinary("ls2", running="train_and_eval")
    site = input_site((6,))
    x = weights((3, 6))
    good = q.observe(ops.convert_to_tensor(x[:2]), start(q, site), site)
    x[2, 0] = np.nan
    y, state, _ = run(q, x, start(q, site), site, training=True)
    np.testing.assert_allclose(state["scales"], good["scales"], rtol=1e-6)
    assert np.isfinite(y[:2]).all()
    assert np.isnan(y[2, 0])


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(("scheme", "k"), SCHEMES[1:5])
def test_graph_and_jit(scheme, k, jit):
    q = LeastSquaresBinary(scheme, k, running="train_and_eval")
    shape = (7, 3) if jit else (None, 3)
    site = input_site(shape)
    x, w = weights((4, 7, 3)), weights((7, 3))
    state = start(q, site)
    shapes = [(None, None, 3), w.shape, state["scales"].shape, ()]
    signature = None if jit else [tf.TensorSpec(shape) for shape in shapes]

    @tf.function(jit_compile=jit, input_signature=signature)
    def step(x, w, scales, steps):
        state = {"scales": scales, "steps": steps}
        kernel, _ = q.quantize(w, {}, Site(shape=(7, 3)), training=True)
        unseen, _ = q.quantize(x, state, site, training=False)
        y, state = q.quantize(x, state, site, training=True)
        after, _ = q.quantize(x, state, site, training=False)
        return kernel, unseen, y, after, state["scales"]

    kernel, unseen, y, after, scales = step(tf.constant(x), tf.constant(w), *state.values())
    # Sums in another order: some ulps.
    near = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(kernel, run(q, w, {}, Site(shape=w.shape), True)[0], **near)
    np.testing.assert_allclose(unseen, run(q, x, state, site, False)[0], **near)
    expected, state, _ = run(q, x, state, site, True)
    np.testing.assert_allclose(y, expected, **near)
    np.testing.assert_allclose(after, expected, **near)
    np.testing.assert_allclose(scales, state["scales"], **near)


def test_subsample_is_used():
    w = weights((9, 2))
    y, _, _ = run(LeastSquaresBinary("ls1", subsample=3), w, {}, Site(shape=w.shape), False)
    np.testing.assert_allclose(np.abs(y), np.tile(np.abs(w[::3]).mean(axis=0), (9, 1)), rtol=1e-6)


def test_training_lowers_a_loss():
    """Fit a binary dense layer to another one: latent weights must move to the right signs."""
    rng = np.random.default_rng(5)
    target = np.sign(rng.normal(size=(8, 2))).astype(np.float32)
    x = tf.constant(rng.normal(size=(64, 8)).astype(np.float32))
    w = tf.Variable(0.1 * rng.normal(size=(8, 2)).astype(np.float32))
    q, site = LeastSquaresBinary("ls1"), Site(shape=(8, 2))
    optimizer = keras.optimizers.SGD(0.05)
    for _ in range(150):
        with tf.GradientTape() as tape:
            y = x @ q.quantize(w * 1.0, {}, site, training=True)[0]
            loss = tf.reduce_mean((y - x @ target) ** 2)
        optimizer.apply([tape.gradient(loss, w)], [w])
    np.testing.assert_array_equal(np.sign(w.numpy()), target)
