"""Laws, hand-computed cases and reference vectors of bit-level sparsity quantization."""

import golden_files
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasbits.maths import bsq

GOLDEN = golden_files.load("bsq")
CONVERTED = golden_files.cases(GOLDEN, "conv__", "W")
BITS = golden_files.cases(GOLDEN, "bits__", "rq_Z")
FINETUNED = golden_files.cases(GOLDEN, "ft__", "w")
# The notes: 8, or the width of a layer that is wider.
N_MAX = max([8] + [int(GOLDEN[f"{case}_n"]) for case in BITS + CONVERTED + FINETUNED])


def tensor(x, dtype="float64"):
    return ops.convert_to_tensor(np.asarray(x), dtype)


def padded(planes, n_max=None, fill=0.0):
    """Planes of the file, with masked ones above them."""
    planes = np.asarray(planes, np.float64)
    more = (N_MAX if n_max is None else n_max) - len(planes)
    return np.concatenate([planes, np.full((more, *planes.shape[1:]), fill)])


def loaded(case, fill=0.0):
    """Planes, scale and width of a bits case."""
    planes = [tensor(padded(GOLDEN[f"{case}_{part}"], fill=fill)) for part in ("wp", "wn")]
    return *planes, tensor(GOLDEN[f"{case}_s"]), tensor(GOLDEN[f"{case}_n"])


def weight(positive, negative, s, n, clamp=False):
    z = bsq.plane_codes(positive, negative, n, clamp)
    return bsq.step_size(s, n, positive.shape[0]) * z


def top(n):
    return 2 ** int(n) - 1


def noisy(seed=0, n=4, n_max=6, shape=(3, 5)):
    """Random continuous planes: (positive, negative, n)."""
    rng = np.random.default_rng(seed)
    planes = [padded(rng.uniform(0, 2, (n, *shape)) ** 2 / 2, n_max) for _ in range(2)]
    return tensor(planes[0]), tensor(planes[1]), tensor(n)


# Reference vectors.


def test_reference_file_has_every_group():
    assert min(map(len, (CONVERTED, BITS, FINETUNED))) > 0


@pytest.mark.parametrize("case", CONVERTED)
def test_reference_conversion(case):
    w, n = GOLDEN[f"{case}_W"], int(GOLDEN[f"{case}_n"])
    z, s, found = bsq.from_weights(tensor(w), n)
    np.testing.assert_array_equal(z, GOLDEN[f"{case}_Z"])
    # The largest magnitude is copied.
    np.testing.assert_allclose(s, GOLDEN[f"{case}_s"], rtol=1e-7)
    assert int(found) == (n if np.any(w) else 0)
    positive, negative = bsq.split_planes(z, N_MAX)
    if f"{case}_wp" in GOLDEN:
        np.testing.assert_array_equal(positive, padded(GOLDEN[f"{case}_wp"]))
        np.testing.assert_array_equal(negative, padded(GOLDEN[f"{case}_wn"]))
    q = weight(positive, negative, s, found)
    if f"{case}_deq" in GOLDEN:
        # The scale is a float32 maximum in float64: only products are rounded.
        np.testing.assert_allclose(q, GOLDEN[f"{case}_deq"], rtol=1e-7, atol=0)
    assert np.all(np.abs(w - q.numpy()) <= float(s) / (2 * top(n)) * (1 + 1e-9))
    np.testing.assert_allclose(np.abs(q).max(), s, rtol=1e-15)


@pytest.mark.parametrize("fill", [0.0, 1.7])
@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("case", BITS)
def test_reference_forward_and_gradients(case, clamp, fill):
    variables = loaded(case, fill)
    g = tensor(GOLDEN[f"{case}_g"])
    with tf.GradientTape() as tape:
        tape.watch(variables)
        q = weight(*variables, clamp)
    dp, dm, ds = tape.gradient(q, variables[:3], g)
    key = "_clamped" if clamp else ""
    # Float64 on both sides, s of the file exact.
    np.testing.assert_allclose(q, GOLDEN[f"{case}_fwd{key}"], rtol=1e-10, atol=1e-15)
    # Gradients of planes are stored as float32.
    np.testing.assert_allclose(dp, padded(GOLDEN[f"{case}_dwp"]), rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(dm, padded(GOLDEN[f"{case}_dwn"]), rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(ds, GOLDEN[f"{case}_ds{key}"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", BITS)
def test_reference_release(case):
    positive, negative, s, n = loaded(case)
    # The released code runs in float32.
    near = {"rtol": 1e-5, "atol": 1e-6 * float(s)}
    np.testing.assert_allclose(
        weight(positive, negative, s, n, True), GOLDEN[f"{case}_off_fwd"], **near
    )
    z = bsq.plane_codes(positive, negative, n)
    _, s, n = bsq.trim(*bsq.requantize(z, s, n, N_MAX), N_MAX)
    if int(n):
        assert int(n) == int(GOLDEN[f"{case}_off_n"])
        np.testing.assert_allclose(s, GOLDEN[f"{case}_off_s"], rtol=1e-5)
    else:  # the release keeps one stored plane of an all-zero layer
        assert int(GOLDEN[f"{case}_off_n"]) == 1


@pytest.mark.parametrize("fill", [0.0, 1.7])
@pytest.mark.parametrize("case", BITS)
def test_reference_lasso(case, fill):
    positive, negative, _, n = loaded(case, fill)
    with tf.GradientTape() as tape:
        tape.watch((positive, negative))
        loss = bsq.group_lasso(positive, negative, n)
    dp, dm = tape.gradient(loss, (positive, negative))
    np.testing.assert_allclose(loss, GOLDEN[f"{case}_reg"], rtol=1e-10)
    # Stored as float32.
    np.testing.assert_allclose(dp, padded(GOLDEN[f"{case}_reg_dwp"]), rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(dm, padded(GOLDEN[f"{case}_reg_dwn"]), rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("case", BITS)
def test_reference_requantize_and_trim(case):
    positive, negative, s, n = loaded(case)
    z = bsq.plane_codes(positive, negative, n)
    before = weight(positive, negative, s, n).numpy()
    for step, key in ((bsq.requantize, "rq"), (bsq.trim, "tr")):
        z, s, n = step(z, s, n, N_MAX)
        np.testing.assert_array_equal(z, GOLDEN[f"{case}_{key}_Z"])
        assert int(n) == int(GOLDEN[f"{case}_{key}_n"])
        np.testing.assert_allclose(s, GOLDEN[f"{case}_{key}_s"], rtol=1e-12)
        after = weight(*bsq.split_planes(z, N_MAX), s, n)
        # Equal but for the rounding of s.
        np.testing.assert_allclose(after, before, rtol=1e-14, atol=0)
        np.testing.assert_allclose(before, GOLDEN[f"{case}_fwd"], rtol=1e-10, atol=1e-15)
    shift = int(GOLDEN[f"{case}_tr_shift"])
    np.testing.assert_array_equal(z * 2**shift, GOLDEN[f"{case}_rq_Z"])


@pytest.mark.parametrize("case", FINETUNED)
def test_reference_finetuning(case):
    w, s, n = (tensor(GOLDEN[f"{case}_{key}"]) for key in ("w", "s", "n"))
    with tf.GradientTape() as tape:
        tape.watch((w, s))
        q = bsq.step_size(s, n, N_MAX) * bsq.latent_codes(w, n, N_MAX)
    dw, ds = tape.gradient(q, (w, s), tensor(GOLDEN[f"{case}_g"]))
    np.testing.assert_allclose(q, GOLDEN[f"{case}_fwd"], rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(dw, GOLDEN[f"{case}_dw"], rtol=1e-6)  # stored as float32
    np.testing.assert_allclose(ds, GOLDEN[f"{case}_ds"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.clip(w, -1, 1), GOLDEN[f"{case}_w_after_clip"], rtol=1e-7)


# Cases by hand.


def test_by_hand():
    z, s, n = bsq.from_weights(tensor([0.3, -0.1, 0.04]), 2)
    np.testing.assert_array_equal(z, [3, -1, 0])
    assert (float(s), int(n)) == (0.3, 2.0)
    positive, negative = bsq.split_planes(z, 3)
    np.testing.assert_array_equal(positive, [[1, 0, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(negative, [[0, 1, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(weight(positive, negative, s, n), [0.3, -0.1, 0], rtol=1e-15)


def test_growth_by_hand():
    positive, negative = tensor([[0.9], [1.6], [0]]), tensor([[0.0], [0], [0]])
    z = bsq.plane_codes(positive, negative, tensor(2))
    np.testing.assert_array_equal(z, [4])
    z, s, n = bsq.requantize(z, tensor(3.0), tensor(2.0), 3)
    np.testing.assert_array_equal(z, [4])
    assert (float(s), float(n)) == (7.0, 3.0)
    z, s, n = bsq.trim(z, s, n, 3)  # 100 in binary: one plane of value 4
    np.testing.assert_array_equal(z, [1])
    assert (float(s), float(n)) == (4.0, 1.0)


def test_saturates_at_the_greatest_width():
    positive, negative = tensor([[2.0, 0.0], [2.0, 0.0]]), tensor([[0.0, 2.0], [0.0, 2.0]])
    z = bsq.plane_codes(positive, negative, tensor(2))
    np.testing.assert_array_equal(z, [3, -3])
    z, s, n = bsq.requantize(tensor([6.0, -6.0]), tensor(1.0), tensor(2.0), 2)
    np.testing.assert_array_equal(z, [3, -3])
    assert (float(s), float(n)) == (1.0, 2.0)


def test_ties_round_to_even():
    halves = tensor([[0.5, 1.5, 0.5], [0.0, 0.0, 1.0]])
    z = bsq.plane_codes(halves, ops.zeros_like(halves), tensor(2))
    np.testing.assert_array_equal(z, [0, 2, 2])


# Laws.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", range(16))
def test_top_level_is_exact(n, dtype):
    for jit in (False, True):
        f = tf.function(lambda n: bsq.top_level(n, 15), jit_compile=jit)
        assert float(f(tensor(n, dtype))) == 2.0**n - 1


@pytest.mark.parametrize("n", [1, 3, 8, 15])
def test_conversion_is_within_half_a_step(n):
    w = np.random.default_rng(n).normal(size=(7, 9))
    z, s, found = bsq.from_weights(tensor(w), n)
    positive, negative = bsq.split_planes(z, 15)
    assert set(np.unique(positive)) | set(np.unique(negative)) <= {0.0, 1.0}
    assert np.max(positive * negative) == 0
    np.testing.assert_array_equal(bsq.plane_codes(positive, negative, found), z)
    q = weight(positive, negative, s, found).numpy()
    assert np.all(np.abs(w - q) <= float(s) / (2 * top(n)) * (1 + 1e-12))
    np.testing.assert_allclose(np.abs(q).max(), np.abs(w).max(), rtol=1e-15)


def test_requantizing_keeps_the_weight_grows_by_one_and_trim_is_idempotent():
    grown = 0
    for seed in range(20):
        n_before = 1 + seed % 5
        positive, negative, n = noisy(seed, n_before, n_max=5)
        s = tensor(0.7)
        before = weight(positive, negative, s, n).numpy()
        z, s1, n1 = bsq.requantize(bsq.plane_codes(positive, negative, n), s, n, 5)
        assert int(n1) - n_before in (0, 1)
        assert int(n1) <= 5
        grown += int(n1) - n_before
        step = bsq.step_size(s, n, 5)
        np.testing.assert_allclose(bsq.step_size(s1, n1, 5), step, rtol=1e-14)
        np.testing.assert_allclose(weight(*bsq.split_planes(z, 5), s1, n1), before, rtol=1e-14)
        real = bsq.plane_sum(positive, negative, n).numpy()
        inside = np.abs(real) <= top(5)
        assert np.all(np.abs(z.numpy() - real)[inside] <= 0.5)
        trimmed = bsq.trim(z, s1, n1, 5)
        for once, twice in zip(trimmed, bsq.trim(*trimmed, 5), strict=True):
            np.testing.assert_array_equal(once, twice)
    assert grown > 0


@pytest.mark.parametrize("values", [[4, -12, 0], [1, 2, 4], [0, 0, 0], [-8, 8, 0], [15, -15, 15]])
def test_trim_leaves_used_planes_at_both_ends(values):
    z, s, n = bsq.trim(tensor(values), tensor(1.5), tensor(4.0), 6)
    np.testing.assert_allclose(
        bsq.step_size(s, n, 6) * z, 0.1 * np.float64(values), rtol=1e-14, atol=0
    )
    used = np.bitwise_or.reduce(np.abs(z.numpy()).astype(int))
    assert int(n) == int(used).bit_length()
    assert used % 2 == 1 or int(n) == 0
    assert (float(s) == 0) == (int(n) == 0)


def test_empty_layer_never_revives():
    z, s, n = bsq.requantize(tensor([0.0, 0.0]), tensor(0.0), tensor(0.0), 4)
    assert (float(s), float(n)) == (0.0, 0.0)
    positive = tensor(np.full((4, 2), 1.3))
    with tf.GradientTape() as tape:
        tape.watch((positive, s))
        q = weight(positive, ops.zeros_like(positive), s, n)
    dp, ds = tape.gradient(q, (positive, s))
    for array in (q, dp, ds, z):
        np.testing.assert_array_equal(array, np.zeros(array.shape))
    assert float(bsq.group_lasso(positive, positive, n)) == 0


def test_gradient_relations():
    positive, negative, n = noisy(3)
    s, g = tensor(0.4), tensor(np.random.default_rng(4).normal(size=(3, 5)))
    with tf.GradientTape() as tape:
        tape.watch((positive, negative))
        loss = ops.sum(g * weight(positive, negative, s, n))
    dp, dm = (d.numpy() for d in tape.gradient(loss, (positive, negative)))
    np.testing.assert_array_equal(dp, -dm)
    np.testing.assert_allclose(dp[1:4], 2 * dp[:3], rtol=1e-14)
    np.testing.assert_array_equal(dp[4:], 0)
    # Central differences of the un-rounded, linear forward are exact but for rounding.
    b, i, h = 2, (1, 3), 0.25
    moved = np.zeros(positive.shape)
    moved[(b, *i)] = h

    def real(p):
        w = bsq.step_size(s, n, 6) * bsq.plane_sum(p, negative, n)
        return float(ops.sum(g * w))

    slope = (real(positive + moved) - real(positive - moved)) / (2 * h)
    np.testing.assert_allclose(dp[(b, *i)], slope, rtol=1e-11)


def test_lasso_laws():
    positive, negative, n = noisy(5)
    zero = ops.zeros_like(positive)
    np.testing.assert_allclose(bsq.group_lasso(zero, zero, n), 1e-4 * int(n), rtol=1e-12)
    value = float(bsq.group_lasso(positive, negative, n))
    assert value > 0
    assert float(bsq.group_lasso(negative, positive, n)) == value
    with tf.GradientTape() as tape:
        tape.watch(zero)
        loss = bsq.group_lasso(zero, zero, n)
    np.testing.assert_array_equal(tape.gradient(loss, zero), zero)


@pytest.mark.parametrize("shape", [(1,), (1, 1), (3, 2)])
@pytest.mark.parametrize("value", [0.0, 0.7, -2.5])
def test_constant_and_single_weights(value, shape):
    w = np.full(shape, value)
    z, s, n = bsq.from_weights(tensor(w), 4)
    assert int(n) == (4 if value else 0)
    np.testing.assert_array_equal(z, 15 * np.sign(w))
    z, s, n = bsq.trim(*bsq.requantize(z, s, n, 8), 8)
    assert int(n) == (4 if value else 0)
    np.testing.assert_allclose(weight(*bsq.split_planes(z, 8), s, n), w, rtol=1e-15)


def test_one_bit_is_ternary():
    z, s, n = bsq.from_weights(tensor([0.8, -0.5, 0.3, 0.1]), 1)
    q = weight(*bsq.split_planes(z, 8), s, n)
    np.testing.assert_allclose(q, [0.8, -0.8, 0, 0], rtol=1e-15)


def test_cancelling_bits_are_removed():
    positive, negative = tensor([[1.0, 1.0], [1.0, 1.0]]), tensor([[0.0, 0.0], [1.0, 1.0]])
    z, s, n = bsq.trim(bsq.plane_codes(positive, negative, tensor(2)), tensor(3.0), tensor(2.0), 2)
    np.testing.assert_array_equal(z, [1, 1])
    assert (float(s), int(n)) == (1.0, 1)
