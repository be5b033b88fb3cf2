"""The grids and gates of Bayesian Bits, by hand and by law."""

import numpy as np
import pytest
import tensorflow as tf
from maths.bayesian_bits_for_tests import GATES, KAPPA, normal, tensor, value

from kerasbits.maths import bayesian_bits as bb

TOP = {0: lambda b: 2**b - 1, 1: lambda b: 2 ** (b - 1) - 1}


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
