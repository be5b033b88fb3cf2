"""Reference vectors of least squares binary quantization."""

import golden_files
import numpy as np
import pytest
from maths.least_squares_for_tests import NAMES, quantized, sse, tensor

from kerasbits.maths import least_squares as ls

GOLDEN = golden_files.load("least_squares_binary")
CASES = sorted(k.split("__")[0] for k in GOLDEN if k.endswith("__x"))
SOLVED = sorted(k[:-2] for k in GOLDEN if k.endswith("_v") and "__off_" not in k and k[:3] != "dot")
OFFICIAL = sorted(k[:-4] for k in GOLDEN if "__off_" in k and k.endswith("_sse"))
BRUTE = sorted(k for k in GOLDEN if "__brute_" in k)
# Rows whose elements lie on a border between two levels: there only scales and errors are unique.
TIED = {"n1", "n2", "n3", "clamped", "zeros", "const", "two_level", "one_spike"}


def test_reference_file_has_every_group():
    assert min(len(CASES), len(SOLVED), len(OFFICIAL), len(BRUTE)) > 0
    assert {s.split("__")[1] for s in SOLVED if s[:3] != "ema"} >= {"ls1", "ls2", "lsT", "gf2"}


@pytest.mark.parametrize("key", SOLVED)
def test_reference_float64(key):
    case, name = key.split("__")
    x, g = GOLDEN[f"{case}__x"], GOLDEN[f"{case}__g"]
    v, q, dx = quantized(x, name, g=g)
    unit = np.abs(x).mean() + 1e-300
    # The same sums in another order: 1e-10 is far above float64 rounding.
    np.testing.assert_allclose(v, GOLDEN[f"{key}_v"], rtol=1e-10, atol=1e-10 * unit)
    expected = GOLDEN[f"{key}_sse"]
    np.testing.assert_allclose(
        sse(x, q), expected, rtol=1e-9, atol=1e-10 * float(np.sum(np.float64(x) ** 2))
    )
    if case not in TIED:
        np.testing.assert_allclose(q, GOLDEN[f"{key}_q"], rtol=1e-10, atol=1e-10 * unit)
        # The stored gradient is float32: half an ulp of it is 6e-8.
        np.testing.assert_allclose(dx, GOLDEN[f"{key}_dx"], rtol=1e-6, atol=1e-7 * unit)
    else:
        # Which side a tied element takes may differ; the scales of the file settle the rest.
        _, q, dx = quantized(x, name, GOLDEN[f"{key}_v"][:, : 1 if name == "lsT" else None], g)
        clear = untied(x, GOLDEN[f"{key}_v"])
        np.testing.assert_allclose(q[clear], GOLDEN[f"{key}_q"][clear], rtol=1e-10)
        np.testing.assert_allclose(dx[clear], GOLDEN[f"{key}_dx"][clear], rtol=1e-6, atol=1e-7)


def untied(x, v):
    """Elements whose residuals are clear of a sign change and of the window border."""
    r, clear = np.float64(x), np.ones(x.shape, bool)
    unit = np.abs(x).mean(axis=-1, keepdims=True)
    for i in range(v.shape[-1]):
        clear &= (np.abs(r) > 1e-6 * unit) | ((r == 0) & (i == 0))
        clear &= np.abs(np.abs(r) - 1) > 1e-6
        r = r - np.where(r >= 0, v[:, i : i + 1], -v[:, i : i + 1])
    return clear


@pytest.mark.parametrize("key", SOLVED)
def test_reference_float32(key):
    case, name = key.split("__")
    x, g = GOLDEN[f"{case}__x"], GOLDEN[f"{case}__g"]
    v, q, dx = quantized(x, name, g=g, dtype="float32")
    power = float(np.sum(np.float64(x) ** 2))
    # Float32 may choose a neighbouring split where two are equally good.
    assert np.all(sse(x, q) <= GOLDEN[f"{key}_sse"] * (1 + 1e-4) + 1e-7 * power)
    if case not in TIED:
        # 1e-4 of mean|x|: the signs of these rows are 2e-5 clear of ties.
        near = 1e-4 * np.abs(x).mean()
        np.testing.assert_allclose(v, GOLDEN[f"{key}_v"], rtol=0, atol=near)
        np.testing.assert_allclose(q, GOLDEN[f"{key}_q"], rtol=0, atol=near)
        scale = max(1.0, float(np.abs(g).max()))
        np.testing.assert_allclose(dx, GOLDEN[f"{key}_dx"], rtol=1e-4, atol=near * scale)


@pytest.mark.parametrize("key", OFFICIAL)
def test_never_worse_than_released_code(key):
    case, off = key.split("__")
    name = off.split("_")[1]
    x = GOLDEN[f"{case}__x"]
    _, q, _ = quantized(x, name)
    # Equal on rows where the released search finds the optimum, up to its float32.
    slack = 1e-6 * np.sum(np.float64(x) ** 2, axis=-1)
    assert np.all(sse(x, q) <= GOLDEN[f"{key}_sse"] + slack)


@pytest.mark.parametrize("key", BRUTE)
def test_equals_exhaustive_search_of_the_file(key):
    case, kind = key.split("__")
    x = GOLDEN[f"{case}__x"]
    _, q, _ = quantized(x, "ls2" if kind == "brute_2bit_sse" else "lsT")
    power = float(np.sum(np.float64(x) ** 2))
    np.testing.assert_allclose(sse(x, q), GOLDEN[key], rtol=1e-9, atol=1e-10 * power)


@pytest.mark.parametrize("name", ["ls1", "ls2", "lsT", "gf2"])
def test_reference_running_average(name):
    scheme, k = NAMES[name]
    momentum = float(GOLDEN["ema__momentum"])
    states = GOLDEN[f"ema__{name}_state"]
    stored = 1 if scheme == "lst" else k
    average, steps = tensor(np.zeros(stored)), tensor(0.0)
    for t, batch in enumerate(GOLDEN["ema__x_train"]):
        scales = ls.solve(tensor(batch), scheme, k)
        average, steps = ls.average_scales(average, steps, scales, momentum)
        expected = states[t][:stored]
        # Float64 sums in another order.
        np.testing.assert_allclose(average.numpy(), expected, rtol=1e-10)
        _, q, _ = quantized(batch, name, average[None])
        np.testing.assert_allclose(q, GOLDEN[f"ema__{name}_q_train_and_eval"][t], rtol=1e-9)
    _, q, _ = quantized(GOLDEN["ema__x_eval"], name, average[None])
    np.testing.assert_allclose(q, GOLDEN[f"ema__{name}_q_eval"], rtol=1e-9)
    assert float(steps) == len(GOLDEN["ema__x_train"])


DOTS = sorted(k[len("dot__") : -len("_agree")] for k in GOLDEN if k.endswith("_agree"))


@pytest.mark.parametrize("pair", DOTS)
def test_popcount_formula_is_the_dot_product(pair):
    w_name, a_name = pair.split("_")
    sides = {}
    for side, name in (("w", w_name), ("a", a_name)):
        x = tensor(GOLDEN[f"dot__{side}"])
        scheme, k = NAMES[name]
        planes = ls.planes_of(ls.solve(x, scheme, k), scheme, 2, 0)
        bits = np.stack([b.numpy() for b in ls.sign_bits(x, planes)])
        v = np.concatenate([p.numpy() for p in planes], axis=-1)
        np.testing.assert_allclose(v, GOLDEN[f"dot__{pair}_{side}v"], rtol=1e-10)
        np.testing.assert_array_equal(bits, GOLDEN[f"dot__{pair}_{side}planes"])
        # Bit for bit: the sum of signed scales in the order of the planes.
        rebuilt = sum(v[:, i, None] * (2.0 * bits[i] - 1) for i in range(len(bits)))
        q = ls.binarize(x, planes).numpy()
        np.testing.assert_array_equal(rebuilt, q)
        sides[side] = (v, bits, q)
    (wv, wbits, wq), (av, abits, aq) = sides["w"], sides["a"]
    agree = (abits[:, None, :, None] == wbits[None, :, None]).sum(axis=-1)
    np.testing.assert_array_equal(agree, GOLDEN[f"dot__{pair}_agree"])
    n = wbits.shape[-1]
    y = np.einsum("bi,oj,ijbo->bo", av, wv, 2 * agree - n)
    # Integer counts and float64 scales on both sides.
    np.testing.assert_allclose(y, aq @ wq.T, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(y, GOLDEN[f"dot__{pair}_y"], rtol=1e-10, atol=1e-12)
