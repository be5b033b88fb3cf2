import types

import keras
import numpy as np
import pytest
from dull import Dull
from keras import layers

from kerasbits import sites
from kerasbits.layers import QuantDense
from kerasbits.quantizers import BitPruning, Site


def fc(name, kernel=None, inputs=None):
    return QuantDense(4, kernel_quantizer=kernel, input_quantizer=inputs, name=name)


class Gate(layers.Layer):
    """Layers in an attribute, a list and a dictionary."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one = fc("one", Dull())
        self.many = [fc("two", Dull()), fc("three")]
        self.named = {"a": fc("four", inputs=Dull())}

    def call(self, x):
        return self.named["a"](self.many[1](self.many[0](self.one(x))))


def model_of_everything():
    x = inputs = keras.Input((3, 4))
    x = layers.TimeDistributed(fc("each", Dull()), name="time")(x)
    x = layers.LSTM(4, name="rnn")(x)
    inner = keras.Sequential([keras.Input((4,)), fc("fc", Dull(), Dull())], name="inner")
    x = inner(x)
    shared = fc("fc", Dull())
    x = layers.add([shared(x), shared(inner(x))], name="add")
    return keras.Model(inputs, Gate(name="gate")(x))


def test_walk_finds_every_layer_once_with_its_path():
    paths = [path for path, _ in sites.walk(model_of_everything())]
    quantized = [p for p in paths if "fc" in p or "gate" in p or "each" in p]
    assert sorted(quantized) == sorted(
        ["time/each", "inner/fc", "fc", "gate/one", "gate/two", "gate/three", "gate/four"]
    )
    assert "rnn/lstm_cell" in paths
    assert len(paths) == len(set(paths))


def test_walk_enters_only_what_it_may():
    model = model_of_everything()
    paths = [path for path, _ in sites.walk(model, lambda layer: layer.name == "inner")]
    assert {"time", "rnn", "gate", "inner/fc", "fc"} <= set(paths)
    assert "time/each" not in paths


def test_places():
    model = model_of_everything()
    found = [(p.path, p.role) for p in sites.places(model)]
    assert found[:4] == [
        ("time/each", "kernel"), ("inner/fc", "kernel"), ("inner/fc", "input"), ("fc", "kernel"),
    ]  # fmt: skip
    assert sorted(found[4:]) == [
        ("gate/four", "input"), ("gate/one", "kernel"), ("gate/two", "kernel"),
    ]  # fmt: skip
    assert {p.role for p in sites.places(model, "input")} == {"input"}
    assert len(list(sites.places(model, "input"))) + len(list(sites.places(model, "kernel"))) == 7
    place = next(sites.places(model))
    assert place.quantizer is place.host.quantizer


def test_state_follows_the_kernel_of_a_layer_built_by_tracing():
    """Keras traces `Gate`, which has no `build`, before its weights exist."""
    for place in sites.places(model_of_everything(), "kernel"):
        kernel = np.abs(place.layer.kernel.numpy())
        assert place.host.state()["peak"] == kernel.max(), place.path


def test_layers_that_are_not_built_have_no_places():
    assert list(sites.places(keras.Sequential([fc("fc", Dull())]))) == []


def test_shares_are_of_one_kind_of_quantizer():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            fc("a", Dull()),
            fc("b", BitPruning(cost="macs"), Dull()),
            QuantDense(12, kernel_quantizer=BitPruning(cost="macs"), name="c"),
        ]
    )
    sites.set_shares(model)
    shares = {(p.path, p.role): p.host.site.share for p in sites.places(model)}
    assert shares == {
        ("a", "kernel"): 0.5,
        ("b", "input"): 0.5,
        ("b", "kernel"): 0.25,  # 16 of 64 multiplications
        ("c", "kernel"): 0.75,
    }


def test_foreign_hosts_are_walked_too():
    """Whatever has `hosts`, as wrappers of other libraries have."""
    told = []
    host = types.SimpleNamespace(
        quantizer=Dull(), site=Site("w", "kernel", (2, 2)), set_share=told.append
    )
    wrapper = types.SimpleNamespace(name="w", hosts={"kernel": host})
    model = types.SimpleNamespace(layers=[wrapper], name="m")
    assert [p.path for p in sites.places(model)] == ["w"]
    sites.set_shares(model)
    assert told == [1.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_finite_state(bad):
    layer = fc("fc", Dull())
    layer.build((None, 3))
    host = layer.kernel_host
    assert sites.finite_state(host) == host.state()
    host.assign({"calls": bad})
    with pytest.raises(ValueError, match="layer 'fc', kernel: expected finite values in 'calls'"):
        sites.finite_state(host)


def test_walking_asks_nothing_of_variables():
    """Those of a strategy look up unknown names in their value, which is reduced for it."""

    class Variable:
        def __getattr__(self, name):
            raise AssertionError(f"asked for {name}")

    layer = Gate()
    expected = [path for path, _ in sites.walk(layer)]
    vars(layer).update(kept=Variable(), several=(Variable(), Variable()))
    assert [path for path, _ in sites.walk(layer)] == expected
