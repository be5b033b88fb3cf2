"""Laws and hand-computed cases of least squares binary quantization."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from maths.least_squares_for_tests import quantized, random_rows, sse, tensor

from kerasbits.maths import least_squares as ls

# Cases by hand.


def test_by_hand():
    x = tensor([[1.0, -3.0, 2.0, -6.0]])
    np.testing.assert_allclose(ls.solve_ls1(x), [[3.0]], rtol=1e-15)
    # Split {1, 2, 3} | {6}: lo = 2, hi = 6.
    np.testing.assert_allclose(ls.solve_ls2(x), [[4.0, 2.0]], rtol=1e-15)
    # S_m^2 / m = 36, 40.5, 40.3, 36: two elements are kept.
    np.testing.assert_allclose(ls.solve_lst(x), [[2.25]], rtol=1e-15)
    # Residuals after 3: -2, 0, -1, -3.
    np.testing.assert_allclose(ls.solve_gf(x, 2), [[3.0, 1.5]], rtol=1e-15)


def test_walk_by_hand():
    x = tensor([0.5, -0.5, 2.0, -2.0, 0.0])
    planes = [tensor(1.0), tensor(0.25)]
    expected = [0.75, -0.75, 1.25, -1.25, 0.75]
    np.testing.assert_array_equal(ls.binarize(x, planes), expected)
    first, second = ls.sign_bits(x, planes)
    np.testing.assert_array_equal(first, [True, False, True, False, True])
    np.testing.assert_array_equal(second, [False, True, True, False, False])


def test_gradient_by_hand():
    x = tensor([0.5, 1.5, 3.0, -0.5])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = ls.binarize(x, [tensor(1.25), tensor(0.5)])
    # |r_1| <= 1 at 0.5 and -0.5; |r_2| <= 1 at all but 3.0. Both: 1.25 + 0.5 (1 - 1.25).
    np.testing.assert_allclose(tape.gradient(y, x), [1.125, 0.5, 0.0, 1.125], rtol=1e-15)


@pytest.mark.parametrize("limit", [1.0, 2.0])
def test_clamp_has_the_gradient_of_a_clip(limit):
    x = tensor([-3.0, -limit, 0.5, limit, 2.5])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = ls.clamp(x, limit)
    np.testing.assert_array_equal(y, np.clip(x, -limit, limit))
    np.testing.assert_array_equal(tape.gradient(y, x), [0, 1, 1, 1, 0])


# Laws.


def test_order_of_errors():
    x = np.concatenate([random_rows(), np.abs(random_rows(1)), random_rows(2) ** 3])
    error = {name: sse(x, quantized(x, name)[1]) for name in ("ls1", "ls2", "lsT", "gf1", "gf2")}
    slack = 1 + 1e-12
    assert np.all(error["ls2"] <= error["gf2"] * slack)
    assert np.all(error["gf2"] <= error["ls1"] * slack)
    assert np.all(error["ls2"] <= error["lsT"] * slack)
    assert np.all(error["lsT"] <= error["ls1"] * slack)
    np.testing.assert_allclose(error["gf1"], error["ls1"], rtol=1e-12)


def test_each_greedy_step_gains_n_v_squared():
    x = random_rows(n=33)
    v, _, _ = quantized(x, "gf5")
    errors = [sse(x, quantized(x, f"gf{k}")[1]) for k in range(1, 6)]
    for k in range(1, 5):
        np.testing.assert_allclose(errors[k - 1] - errors[k], 33 * v[:, k] ** 2, rtol=1e-9)


def brute_force(x, levels):
    """Least squared error over all assignments of `levels` (p, m) with free scales (m,)."""
    best = np.inf
    for chosen in itertools.product(range(len(levels)), repeat=len(x)):
        basis = levels[list(chosen)]
        fit = basis @ np.linalg.lstsq(basis, x, rcond=None)[0]
        best = min(best, float(np.sum((x - fit) ** 2)))
    return best


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_exact_solvers_equal_exhaustive_search(n):
    two = np.array(list(itertools.product([-1.0, 1.0], repeat=2)))
    ternary = np.array([[-1.0], [0.0], [1.0]])
    x = random_rows(n, rows=3, n=n)
    for name, levels in (("ls2", two), ("lsT", ternary)):
        found = sse(x, quantized(x, name)[1])
        best = [brute_force(row, levels) for row in x]
        np.testing.assert_allclose(found, best, rtol=1e-9, atol=1e-12)


def test_stationarity():
    x = random_rows(3)
    a = np.abs(x)
    v = ls.solve_ls2(tensor(x)).numpy()
    t = ls.solve_lst(tensor(x)).numpy()
    for row in range(len(x)):
        lo = a[row][a[row] <= v[row, 0]].mean()
        hi = a[row][a[row] > v[row, 0]].mean()
        np.testing.assert_allclose(v[row], [(lo + hi) / 2, (hi - lo) / 2], rtol=1e-12)
        np.testing.assert_allclose(t[row, 0], a[row][a[row] > t[row, 0]].mean() / 2, rtol=1e-12)
    assert np.all(v[:, 0] >= v[:, 1])
    assert np.all(v[:, 1] >= 0)


@pytest.mark.parametrize("name", ["ls1", "ls2", "lsT", "gf3"])
def test_invariances(name):
    rng = np.random.default_rng(4)
    x = random_rows(5)
    v = quantized(x, name)[0]
    for c in (-3.0, 1e-30, 1e30):
        np.testing.assert_allclose(quantized(c * x, name)[0], abs(c) * v, rtol=1e-11)
    np.testing.assert_allclose(quantized(rng.permutation(x, axis=1), name)[0], v, rtol=1e-11)
    flips = rng.choice([-1.0, 1.0], size=x.shape)
    np.testing.assert_allclose(quantized(flips * x, name)[0], v, rtol=1e-11)


@pytest.mark.parametrize(("name", "levels"), [("ls1", 2), ("ls2", 4), ("lsT", 3), ("gf3", 8)])
def test_few_values_and_idempotent(name, levels):
    x = random_rows(6)
    _, q, _ = quantized(x, name)
    assert all(len(np.unique(row)) <= levels for row in q)
    if name != "gf3":  # greedy scales of greedy values are others
        _, again, _ = quantized(q, name)
        np.testing.assert_allclose(again, q, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["ls1", "ls2", "lsT", "gf3"])
def test_gradient_is_the_nested_slope(name):
    x = 1.5 * random_rows(7)
    g = random_rows(8)
    v, _, dx = quantized(x, name, g=g)
    r, slope = x.copy(), np.zeros_like(x)
    for i in range(v.shape[1]):
        slope = slope + v[:, i, None] * (np.abs(r) <= 1) * (1 - slope)
        r = r - v[:, i, None] * np.where(r >= 0, 1, -1)
    np.testing.assert_allclose(dx, g * slope, rtol=1e-12, atol=1e-15)
    assert np.ptp(slope) > 0
    np.testing.assert_array_equal(quantized(x, name, g=np.zeros_like(x))[2], 0)


def test_no_gradient_through_scales():
    x = tensor(random_rows(9))
    for scheme in ls.SCHEMES:
        with tf.GradientTape() as tape:
            tape.watch(x)
            v = ls.solve(x, scheme, 3)
        assert tape.gradient(v, x) is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["ls1", "ls2", "lsT", "gf3"])
def test_degenerate_vectors(name, dtype):
    unit = 1e-6 if dtype == "float32" else 1e-14
    for n in (1, 2, 7):
        v, q, dx = quantized(np.zeros((2, n)), name, dtype=dtype)
        for array in (v, q, dx):
            np.testing.assert_array_equal(array, 0)
        x = np.array([[0.3] * n, [-5.0] * n])
        v, q, dx = quantized(x, name, dtype=dtype)
        # Constant vectors: an exact tie, so rounding of one scale may remain.
        np.testing.assert_allclose(q, x, rtol=unit)
        share = {"ls1": [1], "ls2": [1, 0], "lsT": [0.5, 0.5], "gf3": [1, 0, 0]}[name]
        np.testing.assert_allclose(v, np.abs(x[:, :1]) * share, atol=5 * unit)
        assert np.isfinite(dx).all()
    v, q, dx = quantized([[1.0, -4.0]], name, dtype=dtype)
    for array in (v, q, dx):
        assert np.isfinite(array).all()


def test_two_magnitudes_are_exact():
    x = np.array([[1.0, -4.0, 4.0, 1.0, -1.0, 1.0, -4.0]])
    v, q, _ = quantized(x, "ls2")
    np.testing.assert_allclose(v, [[2.5, 1.5]], rtol=1e-14)
    np.testing.assert_allclose(q, x, rtol=1e-14)


def test_zeros_count_as_small_magnitudes():
    v, q, _ = quantized([[0.0, 0.0, 6.0, 6.0]], "ls2")
    np.testing.assert_allclose(v, [[3.0, 3.0]], rtol=1e-14)  # lo = 0: zeros stay zero
    np.testing.assert_allclose(q, [[0.0, 0.0, 6.0, 6.0]], atol=1e-14)
    v, q, _ = quantized([[0.0, 1.0, 6.0, 6.0]], "ls2")
    np.testing.assert_allclose(q[0, 0], v[0, 0] - v[0, 1], rtol=1e-14)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("scheme", ls.SCHEMES)
def test_bad_rows_stay_alone(scheme, bad):
    x = random_rows(10)
    good = ls.solve(tensor(x), scheme, 3).numpy()
    x[3, 5] = bad
    v = ls.solve(tensor(x), scheme, 3)
    q = ls.binarize(tensor(x), ls.planes_of(v, scheme, 2, 0)).numpy()
    others = np.arange(len(x)) != 3
    np.testing.assert_array_equal(v.numpy()[others], good[others])
    assert not np.isfinite(v.numpy()[3]).all()
    assert np.isfinite(q[others]).all()
    assert np.isnan(q[3]).all() if np.isnan(bad) else not np.isfinite(q[3]).any()


def test_nan_element_becomes_nan_with_given_scales():
    for jit in (False, True):
        f = tf.function(lambda x: ls.binarize(x, [tensor(0.5)]), jit_compile=jit)
        q = f(tensor([np.nan, 1.0, np.inf])).numpy()
        np.testing.assert_array_equal(np.isnan(q), [True, False, True])


def test_average_leaves_bad_samples_out():
    batch = tensor([[1.0], [np.nan], [3.0]])
    average, steps = ls.average_scales(tensor([0.0]), tensor(0.0), batch, 0.5)
    np.testing.assert_array_equal(average, [2.0])
    np.testing.assert_array_equal(ls.average_scales(average, steps, batch + 2, 0.5)[0], [3.0])
    unchanged = ls.average_scales(average, steps, tensor([[np.nan]]), 0.5)
    np.testing.assert_array_equal(unchanged[0], [2.0])
    assert float(unchanged[1]) == float(steps) == 1


def test_subsample_fits_on_a_part_and_never_crashes():
    x = random_rows(11, n=17)
    for scheme in ls.SCHEMES:
        part = ls.solve(tensor(x[:, ::3]), scheme, 2).numpy()
        np.testing.assert_array_equal(ls.solve(tensor(x), scheme, 2, subsample=3), part)
        for n in (1, 2, 3):
            assert np.isfinite(ls.solve(tensor(x[:, :n]), scheme, 2, subsample=3)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_solved_in_float32(dtype):
    x = ops.cast(1e-6 * random_rows(12), dtype)
    exact = ops.cast(x, "float32")
    for scheme in ls.SCHEMES:
        v = ls.solve(x, scheme, 2)
        assert ops.dtype(v) == "float32"
        np.testing.assert_array_equal(v, ls.solve(exact, scheme, 2))
        q = ls.binarize(x, ls.planes_of(v, scheme, 2, 0))
        assert ops.dtype(q) == dtype


def test_wide_sums_find_the_split_of_long_vectors():
    x = np.abs(random_rows(13, rows=2, n=60_000)).astype(np.float32)
    for solver in (ls.solve_ls2, ls.solve_lst):
        exact = solver(tensor(x)).numpy()
        # The same split: only the rounding of float32 means remains.
        np.testing.assert_allclose(solver(tensor(x, "float32"), "float64"), exact, rtol=1e-6)
        # Float32 sums may be some elements off, which moves the scales a little.
        np.testing.assert_allclose(solver(tensor(x, "float32")), exact, rtol=5e-3)


@pytest.mark.parametrize("jit", [False, True])
def test_graph_with_unknown_shape_or_jit(jit):
    x = random_rows(14).astype(np.float32)
    signature = None if jit else [tf.TensorSpec((None, None), tf.float32)]
    for scheme in ls.SCHEMES:

        @tf.function(jit_compile=jit, input_signature=signature)
        def f(x, scheme=scheme):
            v = ls.solve(x, scheme, 3, sum_dtype="float64")
            return ls.binarize(x, ls.planes_of(v, scheme, 2, 0))

        eager = quantized(x, {"lst": "lsT", "gf": "gf3"}.get(scheme, scheme), dtype="float32")[1]
        # Means are summed in another order: some ulps.
        np.testing.assert_allclose(f(tensor(x, "float32")), eager, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, None])
def test_rows_and_planes_match_axes(axis):
    x = np.random.default_rng(15).normal(size=(2, 3, 4))
    rows = ls.rows(tensor(x), axis).numpy()
    planes = ls.planes_of(ls.solve_ls1(tensor(rows)), "ls1", 3, axis)
    others = None if axis is None else tuple(i for i in range(3) if i != axis % 3)
    np.testing.assert_allclose(planes[0], np.abs(x).mean(axis=others, keepdims=True), rtol=1e-14)


def test_rows_of_a_vector():
    np.testing.assert_array_equal(ls.rows(tensor([1.0, 2.0]), 0), [[1.0], [2.0]])
    np.testing.assert_array_equal(ls.rows(tensor([1.0, 2.0]), None), [[1.0, 2.0]])
