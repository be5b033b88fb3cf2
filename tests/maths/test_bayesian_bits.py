import golden_files
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasbits.maths import bayesian_bits as bb
from kerasbits.maths import hard_concrete as hc

GOLDEN = golden_files.load("bayesian_bits")
EVAL = golden_files.cases(GOLDEN, "e", "x")
TRAIN = golden_files.cases(GOLDEN, "t", "x")
CUTOFF = -2.0  # of the code that made the vectors
KAPPA = 1 - 1e-7
GATES = {2: [0, 0, 0, 0], 4: [1, 0, 0, 0], 8: [1, 1, 0, 0], 16: [1, 1, 1, 0], 32: [1, 1, 1, 1]}
TOP = {0: lambda b: 2**b - 1, 1: lambda b: 2 ** (b - 1) - 1}


def tensor(x, dtype="float64"):
    return ops.convert_to_tensor(np.asarray(x), dtype)


def value(x):
    return ops.convert_to_numpy(x)


def case(name):
    prefix = name + "_"
    return {k[len(prefix) :]: v for k, v in GOLDEN.items() if k.startswith(prefix)}


def over_channels(gate, x):
    """The channel is on axis 0 in the reference files."""
    return ops.reshape(gate, (-1,) + (1,) * (len(x.shape) - 1))


def normal(shape, seed=0, scale=0.6):
    return np.random.default_rng(seed).normal(size=shape) * scale


# Reference vectors, inference.


def test_files_hold_cases():
    assert len(EVAL) == GOLDEN["n_eval"]
    assert len(TRAIN) == GOLDEN["n_train"]


def gated_case(c, dtype):
    x, phi = tensor(c["x"], dtype), tensor(c["phi"], dtype)
    gates = hc.inference_gate(phi) * hc.uncut(phi, CUTOFF)
    mask = hc.inference_gate(tensor(c["phi2"], dtype)) if c["phi2"].size else 1.0
    wide = over_channels(mask, x) if c["phi2"].size else 1.0
    y = bb.quantize_gated(x, tensor(c["x_max"], dtype), tensor(c["signed"], dtype), gates, wide)
    return value(y), gates, mask


@pytest.mark.parametrize("name", EVAL)
def test_reference_inference_float64(name):
    c = case(name)
    y, gates, mask = gated_case(c, "float64")
    # Differences of order 1e-16 beta in the sums.
    np.testing.assert_allclose(y, c["y64"], rtol=0, atol=1e-12 * c["x_max"])
    assert float(bb.effective_bits(gates)) == c["bits"]
    np.testing.assert_array_equal(np.broadcast_to(mask, c["z2"].shape), c["z2"])


@pytest.mark.parametrize("name", EVAL)
def test_reference_inference_float32(name):
    c = case(name)
    y, _, _ = gated_case(c, "float32")
    # An ulp of beta is 1.2e-7 beta. At 16 bits a step is 3e-5 beta, and rounding noise in the
    # residual moves a few elements by one.
    off = np.abs(y.astype(np.float64) - c["y32"]) > 2e-7 * c["x_max"]
    if c["bits"] == 16:
        assert np.abs(y - c["y32"]).max() <= 1.01 * c["scale"]
        assert off.mean() <= 0.05
    else:
        assert not off.any()


@pytest.mark.parametrize("name", EVAL)
def test_reference_fixed_width(name):
    c = case(name)
    x, beta, signed = tensor(c["x"]), tensor(c["x_max"]), tensor(c["signed"])
    mask = over_channels(tensor(c["z2"]), x)
    codes, step = bb.fixed_codes(x, beta, signed, tensor(c["bits"]))
    assert float(step) == pytest.approx(float(c["scale"]), rel=1e-12)
    np.testing.assert_array_equal(value(codes * mask), c["code"])  # whole numbers: exact
    y = value(bb.quantize_fixed(x, beta, signed, tensor(c["bits"])) * mask)
    np.testing.assert_allclose(y, c["y_direct64"], rtol=0, atol=1e-12 * c["x_max"])


# Reference vectors, training.


def trained_case(c):
    x, beta, phi = tensor(c["x"]), tensor(c["x_max"]), tensor(c["phi"])
    phi2 = tensor(c["phi2"])
    with tf.GradientTape() as tape:
        tape.watch([x, beta, phi, phi2])
        gates = hc.sample_gate(phi, tensor(c["u"])) * hc.uncut(phi, CUTOFF)
        z2 = hc.sample_gate(phi2, tensor(c["u2"]))
        wide = over_channels(z2, x) if c["phi2"].size else 1.0
        y = bb.quantize_gated(x, beta, tensor(c["signed"]), gates, wide)
    gradients = tape.gradient(
        y, [x, beta, phi, phi2], tensor(c["gy"]), unconnected_gradients="zero"
    )
    return {
        "z": gates,
        "z2": z2,
        "y": y,
        **dict(zip(("gx", "gx_max", "gphi", "gphi2"), gradients, strict=True)),
    }


@pytest.mark.parametrize("name", TRAIN)
def test_reference_training(name):
    c = case(name)
    got = trained_case(c)
    for key, tensors in got.items():
        # Relative to the largest entry: sums over elements cancel.
        size = max(1.0, np.abs(c[key]).max(initial=0))
        np.testing.assert_allclose(value(tensors), c[key], rtol=0, atol=1e-10 * size, err_msg=key)


@pytest.mark.parametrize("name", TRAIN)
def test_reference_regularizer(name):
    c = case(name)
    phi, phi2 = tensor(c["phi"]), tensor(c["phi2"])
    share = 1.0 if c["reg_type"] == "const" else float(c["macs"] / c["max_macs"])
    costs = [1.0 if c["reg_type"] == "const" else b * share for b in bb.WIDTHS]
    with tf.GradientTape() as tape:
        tape.watch([phi, phi2])
        on2 = hc.probability_on(phi2) if c["phi2"].size else None
        total = bb.expected_cost(hc.probability_on(phi), on2, costs)
    gphi, gphi2 = tape.gradient(total, [phi, phi2], unconnected_gradients="zero")
    # The original holds a float32 constant.
    assert float(total) == pytest.approx(float(c["reg"]), rel=1e-6)
    for got, key in ((gphi, "reg_gphi"), (gphi2, "reg_gphi2")):
        size = np.abs(c[key]).max(initial=0)
        np.testing.assert_allclose(value(got), c[key], rtol=0, atol=1e-6 * size, err_msg=key)


def test_every_array_of_the_file_is_read():
    # A new kind of array in the file must not go unchecked.
    shared = {"x", "x_max", "signed", "phi", "phi2"}
    read = {
        "e": shared | {"bits", "z2", "scale", "code", "y64", "y32", "y_direct64"},
        "t": shared
        | {"u", "u2", "z", "z2", "y", "gy", "gx", "gx_max", "gphi", "gphi2"}
        | {"reg_type", "macs", "max_macs", "reg", "reg_gphi", "reg_gphi2"},
        "s": {"phi", "prob_on", "gate", "gate_noise_free", "u", "sample"},
        "n": {"eval", "train"},
    }
    for key in GOLDEN:
        first, array = key.split("_", 1)
        assert array in read[first[0]], key


# Hand-computed.


def test_two_and_four_bits_by_hand():
    # beta = 3, signed: s_2 = 2, s_4 = 0.4. 1.3 is 1 step of 2 bits; the rest -0.7 is -2 steps
    # (1.75 rounds to 2) of 4 bits: 2 - 0.8 = 1.2 = 3 steps of 0.4.
    x, beta = tensor([1.3, -1.3, 0.9, 5.0]), tensor(3.0)
    for bits, expected in ((2, [2, -2, 0, 2]), (4, [1.2, -1.2, 0.8, 2.8])):
        y = bb.quantize_gated(x, beta, 1.0, tensor(GATES[bits]))
        np.testing.assert_allclose(value(y), expected, atol=1e-15)


def test_partly_open_gate_by_hand():
    x, beta = tensor([1.3]), tensor(3.0)
    y = bb.quantize_gated(x, beta, 1.0, tensor([0.5, 0, 0, 0]), 0.25)
    assert value(y) == pytest.approx([0.25 * (2 - 0.5 * 0.8)], abs=1e-15)


def test_top_codes():
    for bits in bb.WIDTHS:
        for signed in (0, 1):
            assert float(bb.top_code(tensor(bits), signed)) == TOP[signed](bits)


def test_effective_bits_stop_at_the_first_closed_gate():
    for bits, gates in GATES.items():
        assert float(bb.effective_bits(tensor(gates))) == bits
    assert float(bb.effective_bits(tensor([0, 1, 1, 1]))) == 2
    assert float(bb.effective_bits(tensor([1, 1, 0, 1]))) == 8


# Laws.


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("bits", bb.WIDTHS)
def test_open_gates_equal_direct_quantization(bits, signed):
    x, beta = tensor(normal(400)), tensor(1.3)
    gated = value(bb.quantize_gated(x, beta, float(signed), tensor(GATES[bits])))
    direct = value(bb.quantize_fixed(x, beta, float(signed), tensor(bits)))
    np.testing.assert_allclose(gated, direct, rtol=0, atol=1e-14)
    step = 1.3 * (1 + signed) / (2**bits - 1)
    clipped = np.clip(value(x), -KAPPA * 1.3 * signed, KAPPA * 1.3)
    np.testing.assert_allclose(gated, step * np.rint(clipped / step), rtol=0, atol=1e-14)


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("signed", [0, 1])
def test_float32_is_within_one_step_of_direct(bits, signed):
    x = tensor(normal(5000, 8), "float32")
    beta = tensor(1.3, "float32")
    gated = value(bb.quantize_gated(x, beta, float(signed), tensor(GATES[bits], "float32")))
    direct = value(bb.quantize_fixed(x, beta, float(signed), tensor(bits, "float32")))
    step = 1.3 * (1 + signed) / (2**bits - 1)
    # 3e-7: two ulps of beta from summing four terms.
    assert np.abs(gated - direct).max() <= step + 3e-7
    assert np.mean(np.abs(gated - direct) > 3e-7) <= 5e-3


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("bits", bb.WIDTHS)
def test_error_is_half_a_step_at_most(bits, signed):
    x, beta = tensor(normal(1000, 2)), tensor(0.7)
    y = bb.quantize_gated(x, beta, float(signed), tensor(GATES[bits]))
    error = value(y) - value(bb.clip_to_range(x, beta, float(signed)))
    step = 0.7 * (1 + signed) / (2**bits - 1)
    assert np.abs(error).max() <= step / 2 + 1e-15


@pytest.mark.parametrize("signed", [0, 1])
def test_more_bits_err_less(signed):
    x, beta = tensor(normal(1000, 4)), tensor(0.7)
    clipped = value(bb.clip_to_range(x, beta, float(signed)))
    errors = [
        np.mean((value(bb.quantize_gated(x, beta, float(signed), tensor(g))) - clipped) ** 2)
        for b, g in GATES.items()
        if b <= 16
    ]
    assert (np.diff(errors) < 0).all()


@pytest.mark.parametrize("bits", bb.WIDTHS)
def test_zero_is_zero_and_signed_output_is_odd(bits):
    gates, beta = tensor(GATES[bits]), tensor(1.1)
    for signed in (0.0, 1.0):
        assert float(bb.quantize_gated(tensor([0.0]), beta, signed, gates)[0]) == 0
    x = tensor(normal(300, 6))  # no exact ties
    plus = value(bb.quantize_gated(x, beta, 1.0, gates))
    np.testing.assert_array_equal(plus, -value(bb.quantize_gated(-x, beta, 1.0, gates)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_code_range(bits, signed, dtype):
    beta = 0.37
    edges = beta * np.array([-10, -1, -KAPPA, 0, KAPPA, 1, 10])
    x = tensor(np.concatenate([edges, np.linspace(-beta, beta, 4001)]), dtype)
    codes = value(bb.fixed_codes(x, tensor(beta, dtype), float(signed), tensor(bits, dtype))[0])
    top = TOP[signed](bits)
    assert codes.max() == top
    assert codes.min() == -top * signed
    assert codes[[0, 6]].tolist() == [-top * signed, top]
    np.testing.assert_array_equal(codes, np.rint(codes))
    if bits <= 8:
        assert len(np.unique(codes)) == (2**bits - 1 if signed else 2**bits)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_no_range_rounds_out_of_the_codes_in_float32(bits, jit):
    # The step carries the roundings of up to four divisions, the border leaves two ulps: without
    # a limit on the codes, one of 200 signed 16-bit ranges goes one code too far.
    beta = np.exp(np.random.default_rng(20).uniform(-8, 5, 3000)).astype(np.float32)

    def run(beta):
        codes = [bb.fixed_codes(3 * beta, beta, s, float(bits))[0] for s in (0.0, 1.0)]
        return codes, bb.quantize_gated(3 * beta, beta, 1.0, tensor(GATES[bits], "float32"))

    (unsigned, signed), gated = tf.function(run, jit_compile=jit)(beta)
    assert (value(unsigned) == TOP[0](bits)).all()
    assert (value(signed) == TOP[1](bits)).all()
    assert (value(gated) < beta).all()


@pytest.mark.parametrize("signed", [0, 1])
def test_steps_and_integer_recursion(signed):
    beta = tensor(0.9)
    steps = [float(s) for s in bb.grid_steps(beta, float(signed))]
    assert steps[0] == pytest.approx(0.9 * (1 + signed) / 3)
    for b, step, finer in zip(bb.WIDTHS[:-1], steps[:-1], steps[1:], strict=True):
        assert step / finer == pytest.approx(2**b + 1, rel=1e-14)
    x = tensor(normal(300, 7))
    y = {b: value(bb.quantize_gated(x, beta, float(signed), tensor(g))) for b, g in GATES.items()}
    code = np.rint(y[2] / steps[0])
    for i, b in enumerate(bb.WIDTHS[1:], 1):
        residual = np.rint((y[b] - y[b // 2]) / steps[i])
        assert np.abs(residual).max() <= 2 ** (b // 2) // 2
        code = (2 ** (b // 2) + 1) * code + residual
        expected = value(bb.fixed_codes(x, beta, float(signed), tensor(b))[0])
        np.testing.assert_array_equal(code, expected)


@pytest.mark.parametrize("closed", range(4))
def test_a_closed_gate_makes_wider_ones_irrelevant(closed):
    x, beta = tensor(normal((6, 5))), tensor(1.0)
    gates = np.random.default_rng(1).uniform(size=(2, 4))
    gates[:, :closed] = gates[0, :closed]
    gates[:, closed] = 0
    a, b = (value(bb.quantize_gated(x, beta, 1.0, tensor(g))) for g in gates)
    np.testing.assert_array_equal(a, b)


def test_channel_gates_zero_their_channels_only():
    x, beta, gates = tensor(normal((6, 5))), tensor(1.0), tensor([1, 1, 0, 0])
    whole = value(bb.quantize_gated(x, beta, 1.0, gates))
    mask = np.array([1, 0, 1, 1, 0])
    np.testing.assert_array_equal(
        value(bb.quantize_gated(x, beta, 1.0, gates, tensor(mask))), whole * mask
    )
    assert not value(bb.quantize_gated(x, beta, 1.0, gates, tensor(np.zeros(5)))).any()


def gradients(x, beta, signed, gates, channel_gate, upstream):
    with tf.GradientTape() as tape:
        tape.watch([x, beta, gates, channel_gate])
        y = bb.quantize_gated(x, beta, signed, gates, channel_gate)
    return tape.gradient(y, [x, beta, gates, channel_gate], upstream)


@pytest.mark.parametrize("signed", [0.0, 1.0])
def test_gradients_are_the_stated_ones(signed):
    beta, gates, z2 = 0.8, np.array([0.9, 0.6, 0.3, 0.7]), np.array([0.5, 1.0, 0.0])
    x = np.concatenate([normal((20, 3), 9, 0.7), [[-2, 2, 0.1], [3, -3, -0.1]]])
    up = normal(x.shape, 10, 1)
    got = gradients(tensor(x), tensor(beta), signed, tensor(gates), tensor(z2), tensor(up))

    lo, hi = -KAPPA * beta * signed, KAPPA * beta
    xc = np.clip(x, lo, hi)
    y = [
        value(bb.quantize_gated(tensor(x), tensor(beta), signed, tensor(g))) for g in GATES.values()
    ]
    e = np.diff(y, axis=0)
    chain = np.cumprod(gates)
    c = np.where(x >= hi, KAPPA, np.where(x <= lo, -KAPPA * signed, 0))
    fine = np.tensordot(chain, e, 1)
    close = {"rtol": 0, "atol": 1e-11}  # float64, sums of a few dozen terms
    np.testing.assert_allclose(value(got[0]), up * z2 * ((x > lo) & (x < hi)), **close)
    to_beta = (up * z2 * ((y[0] - xc) / beta + c + fine / beta)).sum()
    np.testing.assert_allclose(value(got[1]), to_beta, **close)
    for i in range(4):
        before = np.prod(gates[:i])
        after = e[i] + sum(np.prod(gates[i + 1 : j + 1]) * e[j] for j in range(i + 1, 4))
        np.testing.assert_allclose(value(got[2])[i], (up * z2 * before * after).sum(), **close)
    np.testing.assert_allclose(value(got[3]), (up * (y[0] + fine)).sum(0), **close)


def test_gate_gradient_equals_finite_difference():
    # The output is linear in each gate, so the difference quotient is exact.
    x, beta, up = tensor(normal((7, 3), 12)), tensor(0.8), tensor(normal((7, 3), 13))
    gates, z2 = np.array([0.7, 0.5, 0.4, 0.2]), tensor(np.array([0.3, 0.9, 0.6]))
    got = value(gradients(x, beta, 1.0, tensor(gates), z2, up)[2])
    for i in range(4):
        moved = gates + 0.25 * np.eye(4)[i]
        a, b = (bb.quantize_gated(x, beta, 1.0, tensor(g), z2) for g in (gates, moved))
        assert got[i] == pytest.approx(float(ops.sum(up * (b - a))) / 0.25, abs=1e-12)


def test_no_gradient_at_exact_borders():
    # The rectifier form of the reference: both borders count as clipped.
    beta = tensor(1.0)
    for signed, points in ((1.0, [KAPPA, -KAPPA, 1.0, -1.0]), (0.0, [KAPPA, 0.0, -1.0])):
        x = tensor(points)
        got = gradients(x, beta, signed, tensor(GATES[8]), tensor(1.0), tf.ones_like(x))
        assert not value(got[0]).any()
    x = tensor([1.0, -1.0])
    for k, sign in enumerate((1, -1)):
        up = tensor(np.eye(2)[k])
        got = gradients(x, beta, 1.0, tensor(GATES[32]), tensor(1.0), up)
        # beta moves a clipped element with it (up to the step of 32 bits).
        assert float(got[1]) == pytest.approx(sign * KAPPA, abs=1e-9)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_fixed_gradients(bits):
    x, beta, up = tensor(normal(50, 14)), tensor(0.8), tensor(normal(50, 15))
    with tf.GradientTape() as tape:
        tape.watch([x, beta])
        y = bb.quantize_fixed(x, beta, 1.0, tensor(bits))
    gx, gbeta = tape.gradient(y, [x, beta], up)
    gated = gradients(x, beta, 1.0, tensor(GATES[bits]), tensor(1.0), up)
    np.testing.assert_allclose(value(gx), value(gated[0]), atol=1e-12)
    assert float(gbeta) == pytest.approx(float(gated[1]), abs=1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("beta", [0.0, -1.0, 1e-30])
def test_vanishing_range(beta, dtype):
    for x in (np.zeros(6), np.array([0, 1, -1, 1e3, 1e-9, -1e-20])):
        got = gradients(
            tensor(x, dtype),
            tensor(beta, dtype),
            1.0,
            tensor([1, 0.5, 1, 1], dtype),
            tensor(1.0, dtype),
            tf.ones(6, dtype),
        )
        assert all(np.isfinite(value(g)).all() for g in got)
        y = value(
            bb.quantize_gated(tensor(x, dtype), tensor(beta, dtype), 1.0, tensor(GATES[8], dtype))
        )
        assert np.abs(y).max() <= bb.SMALLEST_BETA
        assert not y[x == 0].any()


def test_constant_negative_and_not_finite_inputs():
    beta, gates = tensor(2.0), tensor(GATES[4])
    y = value(bb.quantize_gated(tensor(np.full(5, 0.5)), beta, 1.0, gates))
    assert len(np.unique(y)) == 1
    y = value(bb.quantize_gated(tensor([-3.0, -0.1, 1.0]), beta, 0.0, gates))
    assert y[:2].tolist() == [0, 0]
    assert not np.signbit(value(bb.clip_to_range(tensor([-3.0]), beta, 0.0)))  # no -0
    y = value(bb.quantize_gated(tensor([np.nan, np.inf, -np.inf]), beta, 1.0, gates))
    assert np.isnan(y[0])
    np.testing.assert_allclose(y[1:], [7 * 4 / 15, -7 * 4 / 15], atol=1e-14)


def cost(phi, phi2, costs):
    on2 = None if phi2 is None else hc.probability_on(phi2)
    return bb.expected_cost(hc.probability_on(phi), on2, costs)


def test_regularizer_rises_with_every_gate():
    phi, phi2 = tensor(normal(4, 16, 2)), tensor(normal(7, 17, 2))
    with tf.GradientTape() as tape:
        tape.watch([phi, phi2])
        total = cost(phi, phi2, bb.WIDTHS)
    for g in tape.gradient(total, [phi, phi2]):
        assert (value(g) > 0).all()


def test_regularizer_limits():
    costs = [3.0 * b for b in bb.WIDTHS]
    opened, closed = tensor(np.full(4, 60.0)), tensor(np.full(4, -60.0))
    assert float(cost(opened, None, costs)) == pytest.approx(1 + 3 * sum(bb.WIDTHS[1:]))
    assert float(cost(closed, None, costs)) == pytest.approx(1)  # the constant first term
    half = tensor([60.0, -60.0])
    assert float(cost(opened, half, costs)) == pytest.approx(3 * sum(bb.WIDTHS) / 2)
    assert float(cost(opened, tensor([-60.0]), costs)) == pytest.approx(0, abs=1e-20)


def test_regularizer_still_pushes_cut_gates():
    phi = tensor([1.0, -2.5, 0.5, 0.5])
    x, up = tensor(normal(30, 18)), tensor(np.ones(30))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(phi)
        gates = hc.sample_gate(phi, tensor([0.5, 0.9, 0.5, 0.5])) * hc.uncut(phi, CUTOFF)
        y = bb.quantize_gated(x, tensor(1.0), 1.0, gates)
        total = cost(phi, None, bb.WIDTHS)
    assert value(gates)[1:].tolist() == [0, 0, 0]
    assert not value(tape.gradient(y, phi, up))[1:].any()
    assert (value(tape.gradient(total, phi)) > 0).all()


def test_regularizer_gradient_of_vanished_gates_is_finite():
    phi = tf.fill([4], -1e4)
    with tf.GradientTape() as tape:
        tape.watch(phi)
        total = cost(phi, None, bb.WIDTHS)
    assert np.isfinite(value(tape.gradient(total, phi))).all()


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_xla_agrees_with_eager(bits):
    def run(x, beta, gates):
        with tf.GradientTape() as tape:
            tape.watch([x, beta])
            y = bb.quantize_gated(x, beta, 1.0, gates)
        return (y, bb.quantize_fixed(x, beta, 1.0, float(bits)), *tape.gradient(y, [x, beta]))

    args = (
        tensor(normal(200, 19), "float32"),
        tensor(1.3, "float32"),
        tensor(GATES[bits], "float32"),
    )
    jitted = tf.function(run, jit_compile=True)(*args)
    for got, expected in zip(jitted, run(*args), strict=True):
        # XLA may replace divisions by products; 16-bit steps are 4e-5 and a code may tip over.
        np.testing.assert_allclose(value(got), value(expected), atol=1e-4 if bits == 16 else 2e-5)
