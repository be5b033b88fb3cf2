import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasbits as kb

METHODS = {
    "uniform": kb.Uniform(4),
    "bitpruning": kb.BitPruning(4.5),
    "apot": kb.APoT(4),
    "ls2": kb.LeastSquaresBinary("ls2"),
    "bayesian": kb.BayesianBits(phi=0.5),
}


def model(quantizer, layers=3):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6,))
    for _ in range(layers):
        x = keras.layers.Dense(6, activation="tanh")(x)
    return kb.quantize_model(keras.Model(inputs, x), quantizer, quantizer)


def batch():
    random = np.random.default_rng(0)
    return random.normal(size=(8, 6)).astype(np.float32), np.zeros((8, 6), np.float32)


def bits():
    network = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6), keras.layers.Dense(6)])
    return kb.quantize_model(network, kb.BSQ(8), kb.BitPruning(8.0))


def steps(quantizer, **compiled):
    network = model(quantizer)
    network.compile("sgd", "mse", **compiled)
    losses = [network.train_on_batch(*batch()) for _ in range(3)]
    return losses, [keras.ops.convert_to_numpy(v) for v in network.variables]


def step_graph(layers):
    network = model(METHODS["uniform"], layers)

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(x, training=True))
        return tape.gradient(loss, network.trainable_variables)

    return tf.function(step, autograph=False).get_concrete_function(batch()[0]).graph


# XLA draws other numbers than TensorFlow.
CASES = [
    (name, jit) for name in METHODS for jit in (False, True) if (name, jit) != ("bayesian", True)
]


@pytest.mark.parametrize(("name", "jit"), CASES)
def test_steps_in_graphs_are_those_of_eager_mode(name, jit):
    losses, values = steps(METHODS[name], jit_compile=jit)
    plain_losses, plain_values = steps(METHODS[name], run_eagerly=True, jit_compile=False)
    np.testing.assert_allclose(losses, plain_losses, rtol=1e-4)
    for value, plain in zip(values, plain_values, strict=True):
        np.testing.assert_allclose(value, plain, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [*METHODS, "bsq", "gf", "lst"])
def test_compiled_steps_know_no_batch_beforehand(name):
    # What XLA takes for known when it compiles, it compiles anew for each batch.
    network = bits() if name == "bsq" else model(METHODS.get(name) or kb.LeastSquaresBinary(name))
    x = tf.constant(batch()[0][:7])

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(x, training=True)) + tf.add_n([0.0, *network.losses])
        return tape.gradient(loss, network.trainable_variables)

    compiled = tf.function(step, autograph=False, jit_compile=True)
    code = compiled.experimental_get_compiler_ir(x)(stage="hlo")
    entry = code[code.index("ENTRY") :]
    assert entry.count(" parameter(") == len(compiled.get_concrete_function(x).inputs)


def test_layers_that_quantize_alike_share_their_functions():
    few, many = step_graph(2), step_graph(6)
    assert len(many._functions) == len(few._functions)
    calls = [op for op in many.get_operations() if "PartitionedCall" in op.type]
    assert len(calls) == 24  # kernel and input of 6 layers, forward and back


@dataclasses.dataclass(frozen=True)
class Asking(kb.Uniform):
    """Asks for what differs from layer to layer."""

    wanted: str = "macs"
    listed: list | None = None

    def quantize(self, x, state, site, training=False, seed=None):
        if self.wanted == "error":
            raise site.error("nothing", "something")
        y, updates = super().quantize(x, state, site, training, seed)
        return y * (1 + len(str(getattr(site, self.wanted)))), updates


@pytest.mark.parametrize("quantizer", [Asking(4), Asking(4, wanted="name"), Asking(4, listed=[1])])
def test_quantizers_that_ask_for_their_place_are_told(quantizer):
    losses, _ = steps(quantizer)
    plain_losses, _ = steps(quantizer, run_eagerly=True, jit_compile=False)
    np.testing.assert_allclose(losses, plain_losses, rtol=1e-4)


def test_errors_name_the_layer():
    host = model(kb.Uniform(4)).layers[1].kernel_host
    host.quantizer = Asking(4, wanted="error")
    with pytest.raises(ValueError, match=f"layer '{host.site.name}', kernel: expected nothing"):
        tf.function(lambda x: host(x, training=True))(tf.ones((6, 6)))


def test_layers_draw_their_own_noise():
    layers = model(kb.BayesianBits(phi=0.0, strength=1.0)).layers[1:]
    states = [layer.kernel_host.seed_generator.state for layer in layers]
    before = [keras.ops.convert_to_numpy(state) for state in states]
    run = tf.function(lambda x: [layer.kernel_host(x, training=True) for layer in layers])
    first = run(tf.ones((6, 6)))
    for a, b in zip(before, states, strict=True):
        assert not np.array_equal(a, keras.ops.convert_to_numpy(b))
    second = run(tf.ones((6, 6)))
    values = [float(tf.reduce_sum(y)) for y in (*first, *second)]
    assert len(set(values)) > 3


def convolutions(quantizer, filters):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6, 6, 3))
    for i, count in enumerate(filters):
        x = keras.layers.Conv2D(count, 3, padding="same", activation="tanh", name=f"c{i}")(x)
    return kb.quantize_model(keras.Model(inputs, keras.layers.Flatten()(x)), quantizer, None)


def gradients(network, x):
    with tf.GradientTape() as tape:
        y = network(x, training=True)
        loss = tf.reduce_sum(tf.sin(y)) + tf.add_n([0.0, *network.losses])
    return y, tape.gradient(loss, network.trainable_variables)


SHAPELESS = {
    **{name: q for name, q in METHODS.items() if name != "bayesian"},
    "bayesian": kb.BayesianBits(phi=6.0),  # no noise decides
    "uniform, channels": kb.Uniform(4, granularity="channel"),
    "bitpruning, channels": kb.BitPruning(4.5, granularity="channel"),
    "apot, channels": kb.APoT(4, granularity="channel"),
    "apot, sample": kb.APoT(4, std="sample"),
    "gf": kb.LeastSquaresBinary("gf", k=3),
    "lst, tensor": kb.LeastSquaresBinary("lst", granularity="tensor"),
}


@pytest.mark.parametrize("name", SHAPELESS)
def test_kernels_of_all_shapes_share_a_function(name):
    # Scales, if of channels, are as many in all layers.
    network = convolutions(SHAPELESS[name], [4, 4, 4])
    x = np.random.default_rng(1).normal(size=(2, 6, 6, 3)).astype(np.float32)
    step = tf.function(lambda: gradients(network, x), autograph=False).get_concrete_function()
    like = convolutions(SHAPELESS[name], [3, 3, 3])
    one_shape = tf.function(lambda: gradients(like, x), autograph=False).get_concrete_function()
    assert len(step.graph._functions) == len(one_shape.graph._functions)
    shapes = [tuple(v.shape) for v in network.trainable_variables]
    assert [tuple(g.shape) for g in step.structured_outputs[1]] == shapes
    (y, found), (plain_y, plain) = step(), gradients(network, x)
    np.testing.assert_allclose(y, plain_y, atol=1e-5)
    for g, want in zip(found, plain, strict=True):
        np.testing.assert_allclose(g, want, rtol=1e-3, atol=1e-4)


@dataclasses.dataclass(frozen=True)
class Sized(kb.Uniform):
    """Takes unknown axes for empty ones, unlike the class that it inherits from."""

    def quantize(self, x, state, site, training=False, seed=None):
        y, updates = super().quantize(x, state, site, training, seed)
        return y * float(sum(n or 0 for n in x.shape)), updates


def test_a_method_that_does_not_say_it_is_shapeless_is_told_shapes():
    network = convolutions(Sized(4), [5, 2])
    x = np.random.default_rng(1).normal(size=(2, 6, 6, 3)).astype(np.float32)
    y = tf.function(lambda: network(x, training=True), autograph=False)()
    np.testing.assert_allclose(y, network(x, training=True), rtol=1e-4, atol=1e-4)


@dataclasses.dataclass(frozen=True)
class CountingLosses(kb.Uniform):
    """A loss of each place, by its share and, if asked, by its size."""

    by_size: bool = False

    def loss(self, state, site):
        TRACED.append(self.by_size)
        return state["range"] * site.share * (site.size if self.by_size else 1.0)


TRACED = []


def funnel(quantizer):
    """Kernels of three shapes."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6,))
    for units in (5, 4, 3):
        x = keras.layers.Dense(units)(x)
    network = kb.quantize_model(keras.Model(inputs, x), quantizer, None)
    for number, layer in enumerate(network.layers[1:]):
        layer.kernel_host.set_share(number + 1.0)
    return network


@pytest.mark.parametrize("by_size", [False, True])
def test_losses_of_all_shapes_share_a_function_unless_they_ask(by_size):
    network = funnel(CountingLosses(by_size=by_size))
    TRACED.clear()
    found = tf.function(lambda: tf.add_n(network.losses), autograph=False)()
    sizes = [30, 20, 12] if by_size else [1, 1, 1]
    assert float(found) == sum(size * share for size, share in zip(sizes, (1, 2, 3), strict=True))
    # One that asks begins once more for each place, and is told.
    assert len(TRACED) == (6 if by_size else 1)
