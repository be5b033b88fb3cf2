import golden_files
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from quantizer_states import infer, initial_state, ulp_of_top, updated

from kerasbits.quantizers.base import Site
from kerasbits.quantizers.bitpruning import DECAY, BitPruning

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype(np.float32)
CONV = Site("conv", "kernel", KERNEL.shape, -1, macs=100)
INPUT = Site("fc", "input", (6,), None, macs=10)
BATCH = np.random.default_rng(1).normal(size=(20, 6)).astype(np.float32)


def tensors(state):
    return {name: tf.constant(value) for name, value in state.items()}


def frozen(quantizer, state, site):
    return updated(state, quantizer.freeze(state, site))


@pytest.mark.parametrize(
    "quantizer",
    [
        BitPruning(),
        BitPruning(4.5, 0.3, "macs", "channel", 8, 1.0, "fixed", "round", "integer"),
        BitPruning(bits=2, cost="footprint", range_mode="batch"),
    ],
)
def test_config_round_trip(quantizer):
    config = keras.saving.serialize_keras_object(quantizer)
    assert keras.saving.deserialize_keras_object(config) == quantizer
    assert config["registered_name"] == "kerasbits>BitPruning"


@pytest.mark.parametrize(
    "fields",
    [
        {"bits": 0.5},
        {"bits": 17},
        {"bits": float("nan")},
        {"bits": 9, "max_bits": 8},
        {"max_bits": 17},
        {"max_bits": 1, "bits": 1},
        {"max_bits": 8.0},
        {"strength": -1},
        {"strength": "much"},
        {"cost": "size"},
        {"granularity": "layer"},
        {"rate": 3.0},
        {"rate": 0.0},
        {"rate": -2.0},
        {"range_mode": "minmax"},
        {"rounding": "floor"},
        {"zero_point": 0},
    ],
)
def test_wrong_fields(fields):
    with pytest.raises(ValueError, match=r"BitPruning: expected .*, got"):
        BitPruning(**fields)


def test_variables():
    kernel = BitPruning(6.5, granularity="channel", max_bits=8).variables(CONV)
    assert set(kernel) == {"bits", "fixed_bits"}
    bits = kernel["bits"]
    assert (bits.shape, bits.initial, bits.trainable) == ((4,), 6.5, True)
    assert (bits.min, bits.max, bits.rate) == (1, 8, 16)
    assert not kernel["fixed_bits"].trainable
    assert set(BitPruning().variables(INPUT)) == {"bits", "fixed_bits", "lo", "hi", "seen"}
    assert set(BitPruning(range_mode="batch").variables(INPUT)) == {"bits", "fixed_bits"}


def test_input_has_one_scale():
    with pytest.raises(ValueError, match=r"'fc', input.*one scale"):
        BitPruning(granularity="channel").variables(INPUT)


def test_empty_kernel_is_an_error_at_build_time():
    with pytest.raises(ValueError, match=r"'c', kernel: expected .*at least one element"):
        BitPruning().variables(Site("c", "kernel", (3, 0), -1))


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("zero_point", ["real", "integer"])
@pytest.mark.parametrize("axis", [-1, 2])
@pytest.mark.parametrize("bits", [1.0, 2.4, 4.0, 7.7, 16.0])
def test_codes_are_those_of_quantize(granularity, zero_point, axis, bits):
    quantizer = BitPruning(bits, granularity=granularity, zero_point=zero_point)
    site = Site("conv", "kernel", KERNEL.shape, axis)
    state = initial_state(quantizer, site)
    if granularity == "channel":
        state["bits"] = np.linspace(1, bits, site.channels).astype(np.float32)
    state = frozen(quantizer, state, site)
    pack = quantizer.encode(KERNEL, state, site)
    # The same products and sums in the same order: no tolerance.
    np.testing.assert_array_equal(pack.decode(), infer(quantizer, KERNEL, state, site))
    want = np.broadcast_to(np.ceil(state["bits"]), site.channels)
    np.testing.assert_array_equal(pack.bits, want)
    np.testing.assert_array_equal(quantizer.widths(state, site), np.ceil(state["bits"]))
    codes = np.moveaxis(pack.codes, axis, -1)
    assert np.all(codes < 2.0**pack.bits)
    if zero_point == "integer":
        assert not pack.encoding.origin.any()
        zero = np.zeros_like(KERNEL)
        zero[0, 0] = KERNEL[0, 0]
        packed_zero = quantizer.encode(zero, state, site)
        assert not packed_zero.decode()[1:].any()  # 0 stays exactly 0


def test_real_bits_cannot_be_encoded():
    state = initial_state(BitPruning(4.5), CONV)
    with pytest.raises(ValueError, match=r"'conv', kernel: expected whole bits.*freeze"):
        BitPruning(4.5).encode(KERNEL, state, CONV)
    state = updated(initial_state(BitPruning(4.5), INPUT), {"seen": np.float32(1)})
    with pytest.raises(ValueError, match=r"'fc', input: expected whole bits"):
        BitPruning(4.5).grid(state, INPUT)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_kernel_must_be_finite(bad):
    w = KERNEL.copy()
    w[0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match="'conv', kernel: expected a finite kernel"):
        BitPruning().encode(w, initial_state(BitPruning(), CONV), CONV)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("zero_point", ["real", "integer"])
@pytest.mark.parametrize("value", [0.0, 2.5, -0.75])
def test_constant_kernels(granularity, zero_point, value):
    w = np.full((1, 1), value, np.float32)
    quantizer = BitPruning(3.4, granularity=granularity, zero_point=zero_point)
    site = Site("one", "kernel", w.shape, -1)
    state = tensors(initial_state(quantizer, site))
    with tf.GradientTape() as tape:
        tape.watch(state)
        y, _ = quantizer.quantize(w, state, site, training=True)
    # With a whole zero the grid spans 0..value and reaches value by a product.
    atol = 0 if zero_point == "real" else 2 * ulp_of_top(2.5)
    np.testing.assert_allclose(y, w, atol=atol, rtol=0)
    gradient = tape.gradient(y, state)["bits"].numpy()
    assert np.all(np.abs(gradient) <= atol)
    done = frozen(quantizer, initial_state(quantizer, site), site)
    np.testing.assert_array_equal(
        quantizer.encode(w, done, site).decode(), infer(quantizer, w, done, site)
    )


# Freezing.


@pytest.mark.parametrize(
    ("rounding", "learned", "want"),
    [
        ("ceil", 3.2, 4),
        ("round", 3.2, 3),
        ("ceil", 4.0000005, 4),
        ("ceil", 0.2, 1),
        ("round", 40.0, 16),
    ],
)
def test_freeze(rounding, learned, want):
    quantizer = BitPruning(rounding=rounding)
    state = {**initial_state(quantizer, CONV), "bits": np.float32(learned)}
    done = frozen(quantizer, state, CONV)
    assert done["fixed_bits"] == want
    assert float(quantizer.widths(done, CONV)) == want
    # Whatever an optimizer's momentum does to the learned bits later:
    moved = {**done, "bits": np.float32(9.9)}
    np.testing.assert_array_equal(
        infer(quantizer, KERNEL, moved, CONV),
        infer(BitPruning(float(want)), KERNEL, initial_state(BitPruning(float(want)), CONV), CONV),
    )
    assert frozen(quantizer, moved, CONV)["fixed_bits"] == want  # idempotent
    assert float(quantizer.loss(tensors(moved), CONV)) == 0


def test_frozen_bits_have_no_gradient():
    state = tensors(frozen(BitPruning(3.5), initial_state(BitPruning(3.5), CONV), CONV))
    with tf.GradientTape() as tape:
        tape.watch(state["bits"])
        y, _ = BitPruning(3.5).quantize(KERNEL, state, CONV, training=True)
        total = tf.reduce_sum(y * KERNEL) + BitPruning(3.5).loss(state, CONV)
    gradient = tape.gradient(total, state["bits"])
    assert gradient is None or float(gradient) == 0


def test_freezing_nan_is_an_error():
    state = {**initial_state(BitPruning(), CONV), "bits": np.float32(np.nan)}
    with pytest.raises(ValueError, match=r"'conv', kernel: expected learned bits.*NaN"):
        BitPruning().freeze(state, CONV)


# The regularizer.


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_loss_and_its_gradient(granularity):
    quantizer = BitPruning(5.0, strength=0.3, granularity=granularity)
    site = Site("conv", "kernel", KERNEL.shape, -1, share=0.25)
    state = initial_state(quantizer, site)
    n = np.float32([2.0, 3.0, 4.5, 0.5]) if granularity == "channel" else np.float32(3.5)
    state["bits"] = n
    state = tensors(state)
    with tf.GradientTape() as tape:
        tape.watch(state)
        loss = quantizer.loss(state, site)
    assert loss.shape == ()
    # A mean of four float32 numbers.
    assert float(loss) == pytest.approx(0.3 * 0.25 * np.clip(n, 1, 16).mean(), rel=1e-6)
    gradient = tape.gradient(loss, state["bits"])
    np.testing.assert_allclose(gradient, np.full(n.shape, 0.3 * 0.25 / n.size), rtol=1e-6)


def test_share_may_be_a_tensor():
    site = Site("conv", "kernel", KERNEL.shape, -1, share=tf.constant(0.5))
    loss = BitPruning(8.0, strength=1.0).loss(tensors(initial_state(BitPruning(), site)), site)
    assert float(loss) == 4.0


def test_without_a_task_all_bits_reach_one():
    quantizer = BitPruning(4.0, strength=1.0, granularity="channel")
    n = tf.Variable([4.0, 3.0, 1.2, 1.0])
    state = tensors(initial_state(quantizer, CONV))
    for _ in range(150):
        with tf.GradientTape() as tape:
            loss = quantizer.loss({**state, "bits": n * 1.0}, CONV)
        n.assign(tf.clip_by_value(n - 0.1 * tape.gradient(loss, n), 1.0, 16.0))
    np.testing.assert_array_equal(n, 1.0)


SITES = [
    Site("a", "kernel", (3, 3, 2, 4), -1, macs=300),
    Site("a", "input", (5, None, 2), None, macs=300),
    Site("b", "kernel", (10, 2), -1, macs=20),
]


@pytest.mark.parametrize(
    ("cost", "want"),
    [
        ("average", [1 / 3, 1 / 3, 1 / 3]),
        ("macs", [300 / 620, 300 / 620, 20 / 620]),
        ("footprint", [72 / 102, 10 / 102, 20 / 102]),
    ],
)
def test_shares_sum_to_one(cost, want):
    shares = [BitPruning(cost=cost).share(s, SITES) for s in SITES]
    assert shares == pytest.approx(want, rel=1e-12)
    assert sum(shares) == pytest.approx(1, rel=1e-12)


def test_shares_when_nothing_can_be_counted():
    unknown = [Site("a", "kernel", (2, 2)), Site("b", "kernel", (2, 2))]
    assert [BitPruning(cost="macs").share(s, unknown) for s in unknown] == [0.5, 0.5]
    assert BitPruning(cost="macs").share(unknown[0], []) == 1.0


def test_golden_footprint_and_average_shares():
    arrays = golden_files.load("bitpruning")
    sites = [Site(str(i), "kernel", (int(n), 1)) for i, n in enumerate(arrays["reg_numel"])]
    for cost in ("average", "footprint"):
        shares = [BitPruning(cost=cost).share(s, sites) for s in sites]
        np.testing.assert_allclose(shares, arrays[f"reg_{cost}_lambda"], rtol=1e-12)  # one division


# Inputs.


def test_ema_trains_on_the_batch_and_infers_on_the_average():
    quantizer = BitPruning(2.0)
    state = initial_state(quantizer, INPUT)
    first = np.float32([[0.0, 1.0, 2.0, 3.0, 1.0, 2.0]])
    y, updates = quantizer.apply(first, state, INPUT, training=True)
    np.testing.assert_array_equal(y, first)
    state = updated(state, updates)
    assert (state["lo"], state["hi"], state["seen"]) == (0, 3, 1)
    y, updates = quantizer.apply(first * 2, state, INPUT, training=True)
    np.testing.assert_array_equal(y, first * 2)  # the batch's own range
    state = updated(state, updates)
    assert state["hi"] == pytest.approx(3 * DECAY + 6 * (1 - DECAY), rel=1e-6)
    y, updates = quantizer.apply(first * 2, state, INPUT)
    assert updates == {}
    assert float(ops.max(y)) == pytest.approx(float(state["hi"]), rel=1e-6)  # clipped


def test_fixed_range_stays_and_clips():
    quantizer = BitPruning(2.0, range_mode="fixed")
    state = initial_state(quantizer, INPUT)
    state = updated(state, quantizer.apply(np.float32([[0, 3.0]]), state, INPUT, training=True)[1])
    x = tf.constant([[-1.0, 1.2, 9.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y, updates = quantizer.apply(x, tensors(state), INPUT, training=True)
    np.testing.assert_array_equal(y, [[0, 1, 3]])
    np.testing.assert_array_equal(tape.gradient(y, x), [[0, 1, 0]])
    after = updated(state, updates)
    assert (after["lo"], after["hi"]) == (0, 3)


def test_batch_mode_always_takes_the_batch():
    quantizer = BitPruning(1.0, range_mode="batch")
    state = initial_state(quantizer, INPUT)
    assert quantizer.observe(BATCH, state, INPUT) == {}
    for scale in (1, 5):
        y, updates = quantizer.apply(np.float32([[0, 0.9 * scale, scale]]), state, INPUT)
        np.testing.assert_array_equal(y, [[0, scale, scale]])
        assert updates == {}
    with pytest.raises(ValueError, match=r"'fc', input: expected range_mode.*'batch'"):
        quantizer.grid(state, INPUT)


def test_calibration_keeps_both_ends():
    quantizer = BitPruning()
    state = initial_state(quantizer, INPUT)
    for batch in ([1.0, 2.0], [-3.0, 0.0], [np.nan, 50.0], [1.5, 1.5]):
        state = updated(state, quantizer.observe(np.float32(batch), state, INPUT))
    assert (state["lo"], state["hi"], state["seen"]) == (-3, 2, 1)


@pytest.mark.parametrize("range_mode", ["ema", "fixed"])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_useless_first_batch_does_not_poison(range_mode, value):
    quantizer = BitPruning(range_mode=range_mode)
    state = initial_state(quantizer, INPUT)
    y, updates = quantizer.apply(np.full((2, 6), value, np.float32), state, INPUT, training=True)
    if value == 0:
        np.testing.assert_array_equal(y, 0)
    if np.isnan(value):
        assert np.isnan(np.asarray(y)).all()
    state = updated(state, updates)
    assert state["seen"] == 0
    state = updated(state, quantizer.apply(BATCH, state, INPUT, training=True)[1])
    assert (state["lo"], state["hi"], state["seen"]) == (BATCH.min(), BATCH.max(), 1)


def test_nan_batch_leaves_the_average_alone():
    quantizer = BitPruning()
    state = updated(
        initial_state(quantizer, INPUT),
        quantizer.observe(BATCH, initial_state(quantizer, INPUT), INPUT),
    )
    bad = BATCH.copy()
    bad[0, 0] = np.nan
    y, updates = quantizer.apply(bad, state, INPUT, training=True)
    assert np.isnan(np.asarray(y)[0, 0])
    after = updated(state, updates)
    assert (after["lo"], after["hi"]) == (BATCH.min(), BATCH.max())


def test_inference_before_any_training():
    quantizer = BitPruning(16.0)
    state = initial_state(quantizer, INPUT)
    y, updates = quantizer.apply(BATCH, state, INPUT)
    np.testing.assert_allclose(y, BATCH, atol=np.ptp(BATCH) / 2**16)  # half a step and rounding
    assert updates == {}
    with pytest.raises(ValueError, match=r"'fc', input.*calibrate"):
        quantizer.grid(state, INPUT)


@pytest.mark.parametrize("zero_point", ["real", "integer"])
@pytest.mark.parametrize("bits", [1.0, 3.3, 8.0, 16.0])
def test_grid_is_quantize(zero_point, bits):
    quantizer = BitPruning(bits, zero_point=zero_point)
    state = initial_state(quantizer, INPUT)
    state = updated(state, quantizer.observe(BATCH[:4], state, INPUT))
    state = frozen(quantizer, state, INPUT)
    grid = quantizer.grid(state, INPUT)
    assert grid.bits == np.ceil(bits)
    codes = grid.codes(BATCH)  # some are outside the range of the first rows
    assert codes.max() < 2**grid.bits
    np.testing.assert_array_equal(grid.values(codes), infer(quantizer, BATCH, state, INPUT))
    if zero_point == "integer":
        assert grid.values(grid.codes(np.zeros(1))) == 0


def test_grid_of_a_constant_input():
    quantizer = BitPruning(4.0)
    state = initial_state(quantizer, INPUT)
    x = np.full((2, 6), 2.5, np.float32)
    state = updated(state, quantizer.apply(x, state, INPUT, training=True)[1])
    grid = quantizer.grid(state, INPUT)
    np.testing.assert_array_equal(grid.values(grid.codes(x)), x)


@pytest.mark.parametrize("jit", [False, True])
def test_graph_and_jit(jit):
    quantizer = BitPruning(3.5)
    state = tensors(initial_state(quantizer, INPUT))

    @tf.function(jit_compile=jit)
    def step(x, state):
        y, updates = quantizer.apply(x, state, INPUT, training=True)
        return y, updates, quantizer.loss(state, INPUT), quantizer.widths(state, INPUT)

    traces = 0
    for n in (3.5, 6.25, 0.5, 99.0):  # other bits need no rebuild
        state["bits"] = tf.constant(n)
        y, updates, loss, width = step(tf.constant(BATCH), state)
        want, want_updates = quantizer.apply(tf.constant(BATCH), state, INPUT, training=True)
        # XLA may fuse products and sums: a few ulp of the top level.
        np.testing.assert_allclose(y, want, rtol=0, atol=4 * ulp_of_top(BATCH))
        for name in want_updates:
            np.testing.assert_array_equal(updates[name], want_updates[name])
        assert float(width) == min(max(n, 1), 16)
        assert float(loss) == pytest.approx(0.1 * float(width), rel=1e-6)
        traces = step.experimental_get_tracing_count()
    assert traces == 1


def test_bits_learn_what_precision_the_task_needs():
    """Descent on the rounding error plus a little regularizer: fewer bits for a coarse kernel."""
    fine, coarse = KERNEL.reshape(-1, 1), np.sign(KERNEL).reshape(-1, 1)
    learned = []
    for w in (fine, coarse):
        site = Site("w", "kernel", w.shape, -1)
        quantizer = BitPruning(3.5, strength=0.02)
        state = tensors(initial_state(quantizer, site))
        n = tf.Variable(3.5)
        for _ in range(60):
            with tf.GradientTape() as tape:
                now = {**state, "bits": n * 1.0}
                y, _ = quantizer.quantize(w, now, site, training=True)
                loss = tf.reduce_mean((y - w) ** 2) + quantizer.loss(now, site)
            n.assign(tf.clip_by_value(n - 2.0 * tape.gradient(loss, n), 1.0, 16.0))
        learned.append(float(n))
    assert learned[1] == pytest.approx(1.1, abs=0.2)
    assert learned[0] > learned[1] + 0.5
