import numpy as np
import pytest
import tensorflow as tf
from maths.least_squares_errors_for_tests import least_error, squared_error

from kerasbits.maths import least_squares_search

N = least_squares_search.SHORTEST


def vectors():
    random = np.random.default_rng(0)
    normal = random.normal(size=(3, N))
    found = {
        "normal": normal,
        "rectified": np.maximum(normal, 0),
        "heavy tails": random.standard_t(2, size=(3, N)),
        "log normal": np.exp(2 * normal),
        "far from 0": 1 + 0.01 * normal,
        "tiny": 1e-12 * normal,
        "two humps": np.where(random.random((3, N)) < 0.5, normal, 40 + normal),
        "three humps": np.choose(random.integers(0, 3, (3, N)), [0.0, 10.0, 20.0]) + 0.1 * normal,
        "Cauchy": random.standard_cauchy((3, N)),
        "all scales": 10.0 ** random.uniform(-12, 6, (3, N)),
        "nearly constant": 1 + 1e-3 * random.standard_t(2, size=(3, N)),
        "three near one": random.choice([1.0, 1.0005, 1.003], (3, N), p=[0.2, 0.78, 0.02]),
        "mostly zero": np.where(random.random((3, N)) < 0.01, normal, 0),
        "few values": random.choice([0.0, 0.1, 0.1001, 2.0, 2.0001], (3, N)),
        "whole numbers": random.poisson(3, (3, N)),
        "two spikes": 1e6 * np.eye(3, N) + 1e3 * np.eye(3, N, 7) + normal,
        "two values": np.where(random.random((3, N)) < 0.1, 5.0, 1.0),
        "one spike": np.eye(3, N),
        "constant": np.full((3, N), -3.0),
        "zero": np.zeros((3, N)),
    }
    return {name: x.astype(np.float32) for name, x in found.items()}


def run_as(how, x, scheme, search=least_squares_search.search):
    def run(x):
        return search(x, scheme)

    if how == "eager":
        return run(tf.constant(x)).numpy()
    batch = tf.TensorSpec((None, x.shape[1]))
    graph = tf.function(run, [batch], autograph=False, jit_compile=how == "compiled")
    return graph(tf.constant(x)).numpy()


@pytest.mark.parametrize("how", ["eager", "graph", "compiled"])
@pytest.mark.parametrize("scheme", ["ls2", "lst"])
def test_errors_are_the_least_of_all_splits(how, scheme):
    named = vectors()
    found = run_as(how, np.concatenate(list(named.values())), scheme)
    for number, (name, x) in enumerate(named.items()):
        error = squared_error(x, found[3 * number : 3 * number + 3])
        # float32 scales of a vector without error leave some.
        most = least_error(x, scheme) * (1 + 2e-4) + 1e-10 * (x.astype(float) ** 2).sum(1) + 1e-40
        assert (error <= most).all(), (name, error / np.maximum(most, 1e-40))


@pytest.mark.parametrize("how", ["eager", "graph", "compiled"])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_greedy_scales_are_means_of_what_is_left(how, k):
    x = np.concatenate(list(vectors().values()))
    x[4, 7] = np.nan
    found = run_as(how, x, k, least_squares_search.greedy)
    rest = x.astype(np.float64)
    for scale in found.T:
        whole = np.isfinite(scale)
        assert list(np.flatnonzero(~whole)) == [4]
        mean = np.abs(rest).mean(axis=1)
        # Residuals of float32 are off by what the largest value rounds by.
        slack = 1e-6 * np.abs(x).max(axis=1)[whole]
        assert (np.abs(scale - mean)[whole] <= 1e-5 * mean[whole] + slack).all()
        rest = rest - np.where(rest >= 0, 1, -1) * np.float64(scale)[:, None]


def test_rows_do_not_meet():
    x = vectors()["normal"]
    x[1, 5] = np.nan
    found = least_squares_search.search(tf.constant(x), "ls2").numpy()
    assert np.isnan(found[1]).all()
    alone = least_squares_search.search(tf.constant(x[:1]), "ls2").numpy()
    np.testing.assert_array_equal(found[0], alone[0])


def test_infinity_and_nan_stay_in_their_rows():
    x = np.concatenate(list(vectors().values()))
    alone = run_as("graph", x, "ls2")
    broken = x.copy()
    broken[4, 7], broken[10, 0] = np.inf, np.nan
    found = run_as("graph", broken, "ls2")
    assert not np.isfinite(found[[4, 10]]).any()
    whole = np.delete(np.arange(len(x)), [4, 10])
    np.testing.assert_array_equal(found[whole], alone[whole])


def test_what_a_split_inside_a_bin_gains_is_bounded():
    random = np.random.default_rng(1)
    a = np.sort(random.gamma(1.0, size=N)).astype(np.float32)
    a /= a.mean()
    edges = np.concatenate([[0], np.sort(random.uniform(0, 5, 12)), [a[-1] + 1]]).astype(np.float32)
    bins = np.digitize(a, edges) - 1
    for scheme in ("ls2", "lst"):
        counts = np.bincount(bins, minlength=13).astype(np.float32)[None]
        own = counts, np.bincount(bins, a - 1, 13).astype(np.float32)[None]
        before = [np.cumsum(v, axis=1) - v for v in own]
        moved = np.cumsum(a - 1.0)
        gains = least_squares_search._gain(scheme, N, np.arange(1, N + 1, dtype=np.float32), moved)
        bound = least_squares_search._most_inside(scheme, N, before, own, edges[None])
        ends = least_squares_search._gain(
            scheme, N, *(b + o for b, o in zip(before, own, strict=True))
        )
        for j in range(13):
            inside = np.asarray(gains)[bins == j][:-1]
            most = max(float(bound[0, j]), float(ends[0, j]), float(ends[0, j - 1]) if j else 0.0)
            assert not inside.size or inside.max() <= most * (1 + 1e-5), (scheme, j)
