"""Recipes: quantizers that settings ask for, and the layers that get others."""

import types

import keras
import pytest
from example_modules import example

import kerasbits as kb
from kerasbits import sites

networks = example("networks")
recipes = example("recipes")
quantizing = example("training.quantizing")
values = example("training.values")

EIGHT = kb.Uniform(8)
ENDS_AT_8 = {"^conv1$": kb.Rule(EIGHT, EIGHT), "^logits$": kb.Rule(EIGHT, EIGHT)}


def wanted(**changes):
    return types.SimpleNamespace(
        **{"method": "bitpruning", "method_options": {}, "input_method": "uniform",
           "input_options": {}, "rules": {}, "paper_rules": True, **changes}
    )  # fmt: skip


def recipe(model=None, **changes):
    return quantizing.recipe(wanted(**changes), model)


def test_every_method_has_a_recipe():
    assert set(recipes.METHODS) == set(recipes.INPUT_METHODS) | {"bsq"}
    assert all("kernel" in q.roles for q in recipes.METHODS.values())
    assert all("input" in q.roles for q in recipes.INPUT_METHODS.values())
    assert set(recipes.RECIPES) == {*recipes.METHODS, "binary_weights", "binary"}


def test_plain_methods_need_no_rules():
    for method in ("bitpruning", "bsq", "uniform"):
        found = recipe(method=method)
        assert found == recipes.Recipe(recipes.METHODS[method], EIGHT, {})


@pytest.mark.parametrize("method", ["apot", "least_squares_binary"])
def test_coarse_methods_keep_the_ends_at_8_bits(method):
    assert recipe(method=method).rules == ENDS_AT_8
    assert recipe(method=method, paper_rules=False).rules == {}
    found = recipe(method="uniform", input_method=method).rules
    assert found == {p: kb.Rule(kb.Uniform(4), EIGHT) for p in ENDS_AT_8}
    floats = recipe(method=method, input_method="none")
    assert floats.inputs is None
    assert floats.rules == {p: kb.Rule(EIGHT, None) for p in ENDS_AT_8}


def test_classes_are_never_pruned():
    found = recipe(method="bayesian_bits", method_options={"strength": 0.5})
    kept = kb.BayesianBits(strength=0.5, prune=False)
    assert found.rules == {"^logits$": kb.Rule(kept, EIGHT)}
    assert recipe(method="bayesian_bits", method_options={"prune": False}).rules == {}


def test_options_replace_fields_of_the_recipe():
    found = recipe(method="bsq", method_options={"bits": 3}, input_options={"bits": 5})
    assert found.kernel == kb.BSQ(bits=3, strength=recipes.METHODS["bsq"].strength)
    assert found.inputs == kb.Uniform(5)


def test_rules_of_the_settings_come_first():
    found = recipe(
        method="apot",
        rules={
            "^conv1$": None,
            "^dense": {"kernel": {"bits": 3}, "inputs": "bitpruning"},
            "^conv2$": {"inputs": None},
            "late": {"kernel": {"method": "uniform", "bits": 2, "granularity": "channel"}},
        },
    )
    assert found.rules == {
        "^conv1$": None,  # the paper's rule for this layer is gone
        "^dense": kb.Rule(kb.APoT(3), recipes.INPUT_METHODS["bitpruning"]),
        "^conv2$": kb.Rule(kb.APoT(4), None),
        "late": kb.Rule(kb.Uniform(2, "channel"), EIGHT),
        "^logits$": ENDS_AT_8["^logits$"],
    }
    assert list(found.rules)[-1] == "^logits$"
    assert recipe(method="apot", rules={"o": {"kernel": "bsq"}}).rules.keys() == {"o"}


def test_a_rule_starts_from_the_options_of_the_run():
    found = recipe(method="bsq", method_options={"bits": 5}, rules={"a": {"kernel": {"rate": 2.0}}})
    assert found.rules["a"].kernel == kb.BSQ(bits=5, strength=found.kernel.strength, rate=2.0)


@pytest.mark.parametrize(
    ("changes", "setting", "message"),
    [
        ({"method_options": {"bit": 3}}, "method_options", "BitPruning has no .* mean 'bits'"),
        ({"method_options": {"bits": 99}}, "method_options", r"BitPruning: .* 16\], got 99"),
        ({"input_options": {"bits": "x"}}, "input_options", "Uniform: expected bits .* got 'x'"),
        ({"input_method": "none", "input_options": {"bits": 3}}, "input_options", "expected none"),
        ({"rules": {"(": None}}, "rules", r"expected regexes, got '\('"),
        ({"rules": {"a": 8}}, "rules", "'a': expected null, or a mapping .* got 8"),
        ({"rules": {"a": {"input": None}}}, "rules", "unknown name 'input'.* mean 'inputs'"),
        ({"rules": {"a": {"kernel": "magic"}}}, "rules", "'a': kernel: .* one of .* got 'magic'"),
        ({"rules": {"a": {"inputs": "bsq"}}}, "rules", "'a': inputs: .* one of .* got 'bsq'"),
        ({"rules": {"a": {"kernel": {"bits": -1}}}}, "rules", "'a': kernel: BitPruning: .* got -1"),
        ({"rules": {"a": {"kernel": 3}}}, "rules", "'a': kernel: expected null, .* got 3"),
        ({"rules": {"a": {"inputs": {"bits": 3}}}, "input_method": "none"}, "rules",
         "'a': inputs: expected a method, got only"),
    ],
)  # fmt: skip
def test_errors_name_the_setting(changes, setting, message):
    with pytest.raises(values.SettingError, match=f"^{setting}: .*{message}") as caught:
        recipe(**changes)
    assert caught.value.name == setting


def make(kind, **names):
    layers = kind.layers
    inner = kind.Sequential(
        [kind.Input((4, 4, 2)), layers.DepthwiseConv2D(3, name="a-b"), layers.Flatten()], name="in"
    )
    return kind.Sequential(
        [kind.Input((4, 4, 2)), inner, layers.Dense(3, name="mid"), layers.LayerNormalization(),
         layers.Dense(2, name="head.1"), layers.Softmax()]
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["keras", "tf_keras"])
def test_ends_of_any_model(kind):
    model = make(pytest.importorskip(kind))
    assert quantizing.ends(model) == ("in/a-b", "head.1")
    assert list(recipe(model, method="apot").rules) == [r"^in/a\-b$", r"^head\.1$"]


def test_ends_of_a_model_without_layers_to_quantize():
    model = keras.Sequential([keras.Input((3,)), keras.layers.LayerNormalization()], name="bare")
    with pytest.raises(values.SettingError, match=r"network: .* got none in the model 'bare'"):
        recipe(model, method="apot")


def test_one_layer_is_first_and_last():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="only")])
    found = recipe(model, method="bayesian_bits").rules
    assert not found["^only$"].kernel.prune


@pytest.mark.parametrize("name", ["lenet5", "resnet8"])
@pytest.mark.parametrize("method", recipes.METHODS)
def test_recipes_fit_the_networks(name, method):
    model = networks.NETWORKS[name]((8, 8, 1), 3)
    assert quantizing.ends(model) == recipes.ENDS
    chosen = recipe(model, method=method)
    assert chosen == recipe(method=method)
    q = kb.quantize_model(model, chosen.kernel, chosen.inputs, chosen.rules, strict=True)
    kernels = {place.path: place.quantizer for place in sites.places(q, "kernel")}
    assert kernels["conv2" if name != "resnet8" else "stage2_block1_conv1"] == chosen.kernel
    coarse = method in ("apot", "least_squares_binary")
    assert (kernels["conv1"] == EIGHT) == coarse
    assert (kernels["logits"] == EIGHT) == coarse
