import numpy as np
import pytest
import tensorflow as tf

from kerasbits.maths import least_squares, least_squares_search

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
        "two values": np.where(random.random((3, N)) < 0.1, 5.0, 1.0),
        "one spike": np.eye(3, N),
        "constant": np.full((3, N), -3.0),
        "zero": np.zeros((3, N)),
    }
    return {name: x.astype(np.float32) for name, x in found.items()}


def squared_error(x, scales):
    """Of the nearest levels, in float64, for each row."""
    a, v = np.abs(x.astype(np.float64)), np.float64(scales)
    ends = [v[:, 0] - v[:, 1], v[:, 0] + v[:, 1]] if v.shape[1] == 2 else [0 * v[:, 0], 2 * v[:, 0]]
    return np.min([(a - end[:, None]) ** 2 for end in ends], axis=0).sum(axis=1)


@pytest.mark.parametrize("scheme", ["ls2", "lst"])
@pytest.mark.parametrize("name", list(vectors()))
def test_errors_are_those_of_sorted_vectors(name, scheme):
    x = vectors()[name]
    exact = squared_error(x, least_squares.solve(tf.constant(x), scheme, sum_dtype="float64"))
    found = squared_error(x, least_squares_search.search(tf.constant(x), scheme))
    # float32 scales of a vector without error leave some.
    np.testing.assert_array_less(
        found, exact * (1 + 1e-4) + 1e-10 * (x.astype(float) ** 2).sum(1) + 1e-40
    )


def test_rows_do_not_meet():
    x = vectors()["normal"]
    x[1, 5] = np.nan
    found = least_squares_search.search(tf.constant(x), "ls2").numpy()
    assert np.isnan(found[1]).all()
    alone = least_squares_search.search(tf.constant(x[:1]), "ls2").numpy()
    np.testing.assert_array_equal(found[0], alone[0])


def test_the_same_compiled_in_a_graph():
    x = tf.constant(vectors()["normal"])
    graph = tf.function(lambda x: least_squares_search.search(x, "lst"), autograph=False)
    eager = least_squares_search.search(x, "lst")
    # Sums in another order may choose the neighbouring threshold.
    np.testing.assert_allclose(graph(x), eager, rtol=1e-2)
