"""Bad arguments of the functions a user calls: one clear ValueError each, and nothing changed."""

import keras
import numpy as np
import pytest
from tiny import batch, dense_model

import kerasbits as kb
from kerasbits import sites

X, _ = batch()


@pytest.fixture(scope="module")
def model():
    return dense_model(kb.Uniform(4), kb.Uniform(8))


@pytest.mark.parametrize("data", [None, 5, "images", np.float32(3)], ids=str)
def test_calibrate_wants_data(model, data):
    with pytest.raises(ValueError, match="calibrate: expected"):
        kb.calibrate(model, data)


def test_calibrate_wants_numbers(model):
    with pytest.raises(ValueError, match="expected batches of numbers"):
        kb.calibrate(model, [["a", "b"]])


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("batch_size", 2.5), ("steps", 0), ("steps", -1)]
)
def test_calibrate_wants_whole_positive_counts(model, name, value):
    with pytest.raises(ValueError, match=f"expected .*{name[:4]}.*got {value}"):
        kb.calibrate(model, X, **{name: value})


def test_calibrate_wants_a_model():
    with pytest.raises(ValueError, match="calibrate: expected a model, got NoneType"):
        kb.calibrate(None, X)


def two_inputs():
    inputs = [keras.Input((6,), name="left"), keras.Input((6,), name="right")]
    parts = [keras.layers.Dense(3, name=f"fc_{t.name}")(t) for t in inputs]
    return kb.quantize_model(keras.Model(inputs, keras.layers.Add()(parts)), None, kb.Uniform(8))


def tops(model):
    return {p.path: float(p.host.state()["range_unit"]) for p in sites.places(model, "input")}


@pytest.mark.parametrize("shape", [list, tuple, dict])
def test_calibrate_takes_one_array_an_input(shape):
    left, right = X, 3 * X
    data = {"left": left, "right": right} if shape is dict else shape([left, right])
    model = two_inputs()
    kb.calibrate(model, data, batch_size=5)
    expected = {"fc_left": np.abs(left).max(), "fc_right": np.abs(right).max()}
    assert tops(model) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"(": None}, r"expected regexes, got '\('"),
        ({1: None}, "expected regexes, got 1"),
        ([("first", None)], "expected a dictionary"),
        ({"^flat$": kb.Rule("uniform")}, r"rule '\^flat\$': expected .* that can be quantized"),
    ],
)
def test_rules_are_checked(rules, message):
    layers = [keras.layers.Flatten(name="flat"), keras.layers.Dense(2, name="fc")]
    with pytest.raises(ValueError, match=message):
        kb.quantize_model(keras.Sequential([keras.Input((6,)), *layers]), "uniform", rules=rules)


def test_a_rule_may_also_match_layers_without_a_kernel():
    layers = [keras.layers.Flatten(name="a_flat"), keras.layers.Dense(2, name="a_fc")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    q = kb.quantize_model(model, rules={"^a_": kb.Rule("uniform")})
    assert [p.path for p in sites.places(q)] == ["a_fc"]
