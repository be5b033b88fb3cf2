"""The APoT quantizer: configuration, kernels and training."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from quantizer_states import infer, initial_state, ulp_of_top
from quantizers.apot_for_tests import BATCH, CONV, INPUT, KERNEL, tensors

from kerasbits.maths import apot as maths
from kerasbits.quantizers.apot import INITIAL_ALPHA, APoT
from kerasbits.quantizers.base import Site


@pytest.mark.parametrize(
    "quantizer",
    [
        APoT(),
        APoT(3, "channel", 1, None, True, False, "sample", "pass", "detached", 2.0),
        APoT(bits=1, signed=False, normalize=False),
    ],
)
def test_config_round_trip(quantizer):
    config = keras.saving.serialize_keras_object(quantizer)
    assert keras.saving.deserialize_keras_object(config) == quantizer
    assert config["registered_name"] == "kerasbits>APoT"


@pytest.mark.parametrize(
    "fields",
    [
        {"bits": 0},
        {"bits": 9},
        {"bits": 4.0},
        {"granularity": "layer"},
        {"k": 0},
        {"signed": 0},
        {"bits": 1, "signed": True},
        {"normalize": 1},
        {"rescale": None},
        {"std": "biased"},
        {"gradient": "ste"},
        {"normalization_gradient": "none"},
        {"rate": 0.3},
        {"rate": 0},
    ],
)
def test_wrong_fields(fields):
    with pytest.raises(ValueError, match=r"APoT: expected .*, got"):
        APoT(**fields)


@pytest.mark.parametrize(
    ("quantizer", "site", "message"),
    [
        (APoT(bits=1), CONV, r"'conv', kernel.*LeastSquaresBinary"),
        (APoT(bits=4, k=4), CONV, r"'conv', kernel.*divisor of the bits"),
        (APoT(bits=4, k=4), INPUT, r"'fc', input.*signed=True or False"),
        (APoT(bits=8, k=4, signed=False), INPUT, r"levels of at most 32767"),
        (APoT(signed=False), CONV, r"signed levels for a normalized kernel"),
        (APoT(granularity="channel"), INPUT, r"one scale"),
        (APoT(), Site("c", "kernel", (0, 3), -1), r"at least one element"),
    ],
)
def test_sites_that_cannot_be(quantizer, site, message):
    with pytest.raises(ValueError, match=message):
        quantizer.variables(site)


def test_variables():
    specs = APoT(granularity="channel", rate=2.0).variables(CONV)
    assert set(specs) == {"alpha"}
    alpha = specs["alpha"]
    assert (alpha.shape, alpha.initial, alpha.min, alpha.rate) == ((4,), 3.0, 1e-3, 2.0)
    plain = APoT(normalize=False).variables(CONV)
    assert set(plain) == {"range", "range_unit", "signed"}
    assert set(APoT().variables(INPUT)) == {"range", "range_unit", "signed", "seen"}


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"rescale": False},
        {"std": "sample", "normalization_gradient": "detached"},
        {"normalize": False},
        {"normalize": False, "signed": False},
    ],
)
def test_codes_are_those_of_quantize(granularity, bits, more):
    quantizer = APoT(bits, granularity, **more)
    state = initial_state(quantizer, CONV, KERNEL)
    trained = "alpha" if "alpha" in state else "range"
    state[trained] = (state[trained] * np.float32(0.4)).astype(np.float32)  # some are clipped
    if granularity == "channel":
        state[trained] = state[trained] * np.float32([1, 0.5, 2, 1.3])
    pack = quantizer.encode(KERNEL, state, CONV)
    y = infer(quantizer, KERNEL, state, CONV)
    np.testing.assert_array_equal(pack.decode(), y)  # the same product: no tolerance
    assert pack.codes.dtype == np.uint16
    assert pack.codes.max() < len(pack.encoding.levels) <= 2**bits
    assert np.all(np.diff(pack.encoding.levels) > 0)  # codes rise with the value
    assert pack.encoding.scale.shape == ((4,) if granularity == "channel" else (1,))
    np.testing.assert_array_equal(pack.bits, np.full(4, bits))
    assert float(quantizer.widths(state, CONV)) == bits
    assert len(np.unique(y)) > 1


def test_level_tables():
    site = Site("w", "kernel", (4, 1), -1)
    w = np.float32([[1], [-1], [2], [-2]])
    pack = APoT(4).encode(w, initial_state(APoT(4), site, w), site)
    ten = [0, 1, 2, 3, 4, 6, 8, 10]
    np.testing.assert_array_equal(pack.encoding.levels, [*[-i for i in ten[:0:-1]], *ten])
    assert pack.encoding.levels.dtype == np.int16


@pytest.mark.parametrize("k", [1, 3])
def test_other_base_bits(k):
    quantizer = APoT(4, k=k)  # three bits of magnitude
    state = initial_state(quantizer, CONV)
    levels = quantizer.encode(KERNEL, state, CONV).encoding.levels
    np.testing.assert_array_equal(levels[7:], maths.magnitude_levels(3, k))


@pytest.mark.parametrize("axis", [-1, 0, 2])
def test_other_channel_axis(axis):
    quantizer, site = APoT(4, "channel"), Site("conv", "kernel", KERNEL.shape, axis)
    state = initial_state(quantizer, site)
    state["alpha"] = np.linspace(0.5, 3, site.channels).astype(np.float32)
    pack = quantizer.encode(KERNEL, state, site)
    assert pack.channel_axis == axis % 4
    np.testing.assert_array_equal(pack.decode(), infer(quantizer, KERNEL, state, site))


def test_rescaled_kernels_keep_their_size():
    w = KERNEL - KERNEL.mean()
    state = initial_state(APoT(8), CONV)
    y = infer(APoT(8), w, state, CONV)
    # Widest gap of eight bits is next to the top: 4/64 of alpha, half of it either way.
    np.testing.assert_allclose(y, w, atol=INITIAL_ALPHA * w.std() / 16)
    raw = infer(APoT(8, rescale=False), w, state, CONV)
    np.testing.assert_allclose(raw * (w.std() + 1e-5), y, rtol=1e-5, atol=1e-7)  # float32 std


def test_rescaling_takes_no_part_in_the_gradient():
    grads = []
    for rescale in (False, True):
        quantizer = APoT(4, rescale=rescale)
        w, state = tf.constant(KERNEL), tensors(initial_state(quantizer, CONV))
        with tf.GradientTape() as tape:
            tape.watch([w, state["alpha"]])
            y = tf.reduce_sum(quantizer.quantize(w, state, CONV, training=True)[0] * KERNEL)
        grads.append(tape.gradient(y, [w, state["alpha"]]))
    den = KERNEL.std() + 1e-5
    for plain, scaled in zip(*grads, strict=True):
        # Float32 sums over 72 elements.
        np.testing.assert_allclose(plain * den, scaled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("bits", "gradient", "passes"),
    [(2, None, True), (3, None, False), (2, "clipped", False), (5, "pass", True)],
)
def test_gradient_of_clipped_weights(bits, gradient, passes):
    quantizer = APoT(bits, gradient=gradient, normalization_gradient="detached", rescale=False)
    state = tensors({"alpha": np.float32(0.5)})
    w = tf.constant(KERNEL)
    with tf.GradientTape() as tape:
        tape.watch(w)
        y, _ = quantizer.quantize(w, state, CONV, training=True)
    got = tape.gradient(y, w).numpy()
    wn, den = maths.normalize(w)
    outside = np.abs(wn.numpy()) > 0.5
    assert outside.any()
    assert not outside.all()
    want = np.where(outside & (not passes), 0, 1 / float(den))
    np.testing.assert_allclose(got, want, rtol=1e-6)  # float32


def test_normalization_gradient_is_the_chosen_one():
    grads = {}
    for kind in ("full", "detached"):
        quantizer, w = APoT(4, normalization_gradient=kind), tf.constant(KERNEL)
        with tf.GradientTape() as tape:
            tape.watch(w)
            y = quantizer.quantize(w, tensors({"alpha": np.float32(3)}), CONV)[0] ** 2
        grads[kind] = tape.gradient(y, w).numpy()
    assert abs(grads["full"].sum()) < 1e-4 * np.abs(grads["full"]).sum()  # orthogonal to ones
    assert abs(grads["detached"].sum()) > 1e-2 * np.abs(grads["detached"]).sum()


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("std", ["population", "sample"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3)])
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_constant_kernels(granularity, std, shape, value):
    quantizer, site = APoT(4, granularity, std=std), Site("c", "kernel", shape, -1)
    w = tf.fill(shape, np.float32(value))
    state = initial_state(quantizer, site, w)
    with tf.GradientTape() as tape:
        tape.watch(w)
        y, _ = quantizer.quantize(w, tensors(state), site, training=True)
    np.testing.assert_array_equal(y, np.zeros(shape))
    assert np.isfinite(tape.gradient(y, w)).all()
    assert not quantizer.encode(w, state, site).decode().any()


def test_alpha_is_kept_positive():
    for alpha in (0.0, -5.0):
        state = {"alpha": np.float32(alpha)}
        y = infer(APoT(4, rescale=False), KERNEL, state, CONV)
        assert np.abs(y).max() == np.float32(1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_kernel_must_be_finite(bad):
    w = KERNEL.copy()
    w[0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match="'conv', kernel: expected a finite kernel"):
        APoT().encode(w, initial_state(APoT(), CONV), CONV)
    assert np.isnan(infer(APoT(), w, initial_state(APoT(), CONV), CONV)).any()


def test_frozen_is_fixed_already():
    state = initial_state(APoT(), CONV)
    assert APoT().freeze(state, CONV) == {}
    assert APoT().loss(state, CONV) is None


@pytest.mark.parametrize("jit", [False, True])
def test_graph_and_jit(jit):
    inputs, kernels = APoT(4), APoT(3, "channel")
    state, kernel_state = tensors(initial_state(inputs, INPUT)), initial_state(kernels, CONV)

    def both(x, w, state, kernel_state):
        y, updates = inputs.apply(x, state, INPUT, training=True)
        with tf.GradientTape() as tape:
            tape.watch(w)
            wq, _ = kernels.quantize(w, kernel_state, CONV, training=True)
        return y, updates, wq, tape.gradient(wq, w)

    step = tf.function(both, jit_compile=jit)
    for x in (BATCH, np.abs(BATCH)):  # signed, then unsigned, with one trace
        args = (tf.constant(x), tf.constant(KERNEL), state, tensors(kernel_state))
        y, updates, wq, dw = step(*args)
        want, want_updates, want_wq, want_dw = both(*args)
        # XLA may fuse products: a few ulp of the top level.
        np.testing.assert_allclose(y, want, rtol=0, atol=4 * ulp_of_top(x))
        np.testing.assert_allclose(wq, want_wq, rtol=0, atol=4 * ulp_of_top(want_wq.numpy()))
        np.testing.assert_allclose(dw, want_dw, rtol=0, atol=1e-5)  # gradients of size 1, summed
        for name in want_updates:
            np.testing.assert_array_equal(updates[name], want_updates[name])
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("start", [0.5, 6.0])
def test_learned_alpha_lowers_the_error(start):
    quantizer, w = APoT(3), tf.constant(KERNEL - KERNEL.mean())
    alpha = tf.Variable(start)
    errors = []
    for _ in range(80):
        with tf.GradientTape() as tape:
            y, _ = quantizer.quantize(w, {"alpha": alpha * 1.0}, CONV, training=True)
            error = tf.reduce_mean((y - w) ** 2) / float(tf.math.reduce_variance(w))
        errors.append(float(error))
        alpha.assign_sub(1.0 * tape.gradient(error, alpha))
    assert errors[-1] < 0.5 * errors[0]
    assert 1.5 < float(alpha) < 4.0
