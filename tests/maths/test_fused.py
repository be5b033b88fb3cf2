import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasbits.maths import fused, uniform

SHAPE = (32, 64, 256)


@pytest.fixture
def no_compiler(monkeypatch):
    """TensorFlow without XLA for CPUs: the node fails when it runs, not when it is made."""
    plain, tried = tf.function, []

    def function(body=None, *, jit_compile=None, **arguments):
        if not jit_compile:
            return plain(body, **arguments)

        def fails(*_):
            tried.append(body)
            raise tf.errors.UnimplementedError(None, None, "no XLA here")

        return fails

    monkeypatch.setattr(tf, "function", function)
    fused._compiles.cache_clear()
    yield tried
    fused._compiles.cache_clear()


def quantized():
    """A tensor worth compiling, quantized in a graph: levels, and gradients to it and its range."""
    x = tf.constant(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
    beta = tf.constant(2.0)

    def run(x, beta):
        with tf.GradientTape() as tape:
            tape.watch((x, beta))
            y = uniform.quantize(x, beta, 4, 1.0)
        return y, *tape.gradient(y, (x, beta), tf.cos(x))

    graph = tf.function(run, autograph=False).get_concrete_function(x, beta)
    return [value.numpy() for value in graph(x, beta)], graph


def is_compiled(graph):
    return any(f.definition.attr["_XlaMustCompile"].b for f in graph.graph._functions.values())


def test_large_tensors_are_compiled_and_small_ones_are_not():
    assert fused._compiles(tf)
    assert is_compiled(quantized()[1])


def test_one_trial_tells_that_nothing_compiles(no_compiler):
    _, graph = quantized()
    quantized()
    assert len(no_compiler) == 1  # one trial, whose answer is kept
    assert not is_compiled(graph)


def test_results_do_not_depend_on_the_compiler(request):
    compiled, _ = quantized()
    request.getfixturevalue("no_compiler")
    plain, _ = quantized()
    np.testing.assert_array_equal(plain[0], compiled[0])
    np.testing.assert_array_equal(plain[1], compiled[1])
    np.testing.assert_allclose(plain[2], compiled[2], rtol=1e-5)


@pytest.mark.parametrize("shape", [(300, 29, 31), (2**18 + 1,), (70, 8, 5, 96), (5, 2**16)])
def test_sums_of_any_shape(shape):
    random = np.random.default_rng(1)
    x, dy = (random.normal(size=shape).astype(np.float32) for _ in range(2))

    def gradient(x, beta, dy):
        with tf.GradientTape() as tape:
            tape.watch(beta)
            y = uniform.quantize(x, beta, 4, 1.0)
        return tape.gradient(y, beta, dy)

    found = tf.function(gradient, autograph=False)(*map(tf.constant, (x, np.float32(2), dy)))
    clipped = np.clip(np.float64(x), -2, 2)
    levels = np.round(clipped / (2 / 7)) * (2 / 7)
    slope = np.where(np.abs(x) > 2, np.sign(x), (levels - clipped) / 2)
    assert found.numpy() == pytest.approx((slope * np.float64(dy)).sum(), rel=1e-4, abs=1e-2)


def test_ranges_of_columns_of_a_large_tensor():
    # Such a tensor keeps its shape: a range a column is no table, whatever its rank.
    x = np.random.default_rng(2).normal(size=(fused.SMALL // 64, 4, 16)).astype(np.float32)
    beta = np.linspace(0.5, 2, 16).astype(np.float32)
    found = tf.function(uniform.quantize, autograph=False)(
        tf.constant(x), tf.constant(beta), 4, 1.0
    )
    for j in range(16):
        np.testing.assert_array_equal(
            found[..., j], uniform.quantize(tf.constant(x[..., j]), tf.constant(beta[j]), 4, 1.0)
        )


@pytest.mark.parametrize("rows", [128, None])
def test_rows_in_turn_are_the_rows_at_once(rows, request):
    x = np.random.default_rng(3).normal(size=(128, fused.SMALL // 128)).astype(np.float32)
    scale = np.linspace(1, 2, 128).astype(np.float32)[:, None]

    def sums(x, scale):
        halves = ops.reshape(x, (-1, 2, x.shape[1] // 2))
        return ops.sum(halves, axis=-1) * scale, ops.max(halves, axis=-1)

    def graph():
        specs = [tf.TensorSpec((rows, x.shape[1])), tf.TensorSpec((rows, 1))]
        run = fused.row_by_row(sums)
        return tf.function(run, input_signature=specs, autograph=False).get_concrete_function()

    in_turn = graph()
    eager = fused.row_by_row(sums)(tf.constant(x), tf.constant(scale))
    request.getfixturevalue("no_compiler")
    at_once = graph()
    assert (is_compiled(in_turn), is_compiled(at_once)) == (True, False)
    expected = x.reshape(128, 2, -1).sum(-1) * scale, x.reshape(128, 2, -1).max(-1)
    for found in (in_turn(tf.constant(x), tf.constant(scale)), eager, at_once(x, scale)):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)
