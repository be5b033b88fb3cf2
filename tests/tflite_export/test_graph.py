"""The trace of a model replays to the same numbers."""

import keras
import numpy as np
import pytest
from exportable import images, network

from tflite_export.graph import Ref, trace


def replayed(model, inputs):
    graph = trace(model)
    return graph, graph.replay(inputs, lambda call, args, kwargs: call.layer(*args, **kwargs))


def test_functional_model():
    model, x = network(), images(3)
    graph, outputs = replayed(model, [x])
    np.testing.assert_array_equal(outputs, model(x))
    assert [call.path for call in graph.calls][:2] == ["first", "norm"]


def test_nested_shared_and_bare_operations():
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4, name="fc"), keras.layers.ReLU(name="act")],
        name="inner",
    )
    outer = keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(4)], name="outer")
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    total = outer(a) * 2.0 + inner(b)
    model = keras.Model([a, b], [keras.ops.tanh(total), inner(total)])
    data = [images(5, (4,)), images(5, (4,), seed=1)]
    graph, outputs = replayed(model, data)
    for y, expected in zip(outputs, model(data), strict=True):
        np.testing.assert_array_equal(y, expected)
    paths = [call.path for call in graph.calls]
    # One layer, reached by two paths: it has one name, the first.
    assert paths.count("outer/inner/fc") == 3
    assert "inner/fc" not in paths


def test_layers_for_training_alone_are_left_out():
    inputs = keras.Input((3,))
    x = keras.layers.Dropout(0.5)(keras.layers.GaussianNoise(1.0)(inputs))
    x = keras.layers.Dropout(0.1)(keras.layers.Activation("linear")(keras.layers.Dense(2)(x)))
    model = keras.Model(inputs, [x, keras.layers.Activation("relu")(x)])
    graph, outputs = replayed(model, [images(4, (3,))])
    assert [type(call.layer) for call in graph.calls] == [
        keras.layers.Dense,
        keras.layers.Activation,
    ]
    for y, expected in zip(outputs, model(images(4, (3,))), strict=True):
        np.testing.assert_array_equal(y, expected)


def test_layers_called_by_keyword():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs=inputs))
    graph, outputs = replayed(model, [images(4, (3,))])
    assert graph.calls[0].args == (graph.inputs[0],)
    np.testing.assert_array_equal(outputs, model(images(4, (3,))))


def test_layers_of_several_steps_are_inlined():
    class TwoSteps(keras.layers.Layer):
        """A layer with sub-layers, and the graph over them that exporters ask for."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.first, self.second = keras.layers.Dense(3, name="a"), keras.layers.ReLU(name="b")

        def call(self, x):
            return self.second(self.first(x))

        def as_functional(self):
            inputs = keras.Input((2,))
            return keras.Model(inputs, keras.ops.abs(self.second(self.first(inputs))))

    inputs = keras.Input((2,))
    two = TwoSteps(name="two")
    model = keras.Model(inputs, two(two(inputs)[:, :2]))
    graph, outputs = replayed(model, [images(4, (2,))])
    paths = [call.path for call in graph.calls]
    assert paths.count("two/a") == paths.count("two/b") == 2
    assert {call.layer for call in graph.calls} >= {two.first, two.second}
    np.testing.assert_array_equal(outputs, model(images(4, (2,))))


def test_tracing_leaves_the_model_alone():
    model = network()
    layers = {layer.name: (layer, layer.output) for layer in model.layers}
    trace(model)
    for name, (layer, output) in layers.items():
        assert model.get_layer(name) is layer
        assert layer.output is output  # would raise if the layer had been called again


def test_uses_count_outputs_too():
    inputs = keras.Input((3,))
    x = keras.layers.Dense(2)(inputs)
    graph = trace(keras.Model(inputs, [x, keras.layers.ReLU()(x)]))
    assert graph.uses()[graph.calls[0].outputs] == 2
    assert isinstance(graph.inputs[0], Ref)


def test_models_without_a_graph_are_refused():
    class Subclass(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="expected a built Sequential or functional model"):
        trace(Subclass(name="mine"))
    with pytest.raises(ValueError, match="expected a built"):
        trace(keras.Sequential([keras.layers.Dense(2)]))
