"""Slips that look right and did nothing, and what they are told."""

import re
import warnings

import keras
import numpy as np
import pytest
from dull import Dull
from keras import layers
from tiny import batch, compiled, dense_model

import kerasbits as kb
from kerasbits import quantizers, sites
from kerasbits.callbacks import AdjustBits, FreezeBits, LogBits, Progress
from kerasbits.layers import QuantConv2D, QuantDense, QuantSeparableConv2D

X, Y = batch()


def plain(name="plain"):
    keras.utils.set_random_seed(0)
    parts = [keras.Input((6,)), layers.Dense(5, name="first"), layers.Dense(3, name="last")]
    return keras.Sequential(parts, name=name)


def raises(message):
    return pytest.raises(ValueError, match=re.escape(message))


# The float model in the place of its quantized copy.

STEPS = {
    "calibrate": lambda model: kb.calibrate(model, X),
    "adjust": kb.adjust,
    "freeze": kb.freeze,
}


@pytest.mark.parametrize("step", STEPS)
def test_a_model_without_quantizers(step):
    model = plain()
    kb.quantize_model(model, kernel="bitpruning")
    with raises(f"{step}: expected a model with quantizers, got 'plain', which has none; use the"):
        STEPS[step](model)
    with raises(f"{step}: expected a model with quantizers, got 'bare', which has none"):
        STEPS[step](keras.Sequential([keras.Input((6,)), QuantDense(3)], name="bare"))
    with raises(f"{step}: expected a model, got list"):
        STEPS[step]([])


@pytest.mark.parametrize("step", STEPS)
def test_a_model_that_is_not_built_yet(step):
    model = keras.Sequential([QuantDense(3, kernel_quantizer="uniform")], name="later")
    with raises(f"{step}: expected a model with weights, got 'later' before it was built; call it"):
        STEPS[step](model)
    model(X)
    STEPS[step](model)


def test_kernels_alone_need_no_calibration_but_may_have_it():
    model = dense_model("bitpruning")
    kb.calibrate(model, X)


@pytest.mark.parametrize("callback", [AdjustBits(), FreezeBits(7)], ids=["adjust", "freeze"])
def test_callbacks_say_it_before_the_first_step(callback):
    model = compiled(plain())
    before = model.get_weights()
    with raises(f"{type(callback).__name__}: expected a model with quantizers, got 'plain'"):
        model.fit(X, Y, verbose=0, callbacks=[callback])
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_callbacks_take_models_that_training_builds():
    model = keras.Sequential([QuantDense(3, kernel_quantizer="bitpruning")])
    watch = [AdjustBits(), FreezeBits(1), LogBits()]
    compiled(model).fit(X, Y, verbose=0, epochs=2, callbacks=watch)
    assert model.layers[0].kernel_host.state()["fixed_bits"] == 8
    late = keras.Sequential([QuantDense(3, kernel_quantizer="bitpruning")])
    with raises("before it was built"):
        compiled(late).fit(X, Y, verbose=0, callbacks=[FreezeBits(0)])


def test_a_float_model_has_a_report_and_a_log():
    model = compiled(plain())
    assert kb.report(model).average_bits == 32
    logs = model.fit(X, Y, verbose=0, callbacks=[LogBits(), Progress()]).history
    assert logs["average_bits"] == [32]


# Quantizing what is quantized, or quantizing nothing.


def test_a_model_that_is_quantized_already():
    q = kb.quantize_model(plain(), kernel="bitpruning")
    with raises("layer 'first': expected a float layer, got QuantDense, which is quantized"):
        kb.quantize_model(q, kernel="uniform")
    with raises("layer 'last': expected a float layer, got QuantDense, which is quantized"):
        kb.quantize_model(q, rules={"last": kb.Rule("uniform")})
    parts = keras.Sequential([keras.Input((4, 4, 2)), QuantSeparableConv2D(3, 2, name="parts")])
    with raises("layer 'parts': expected a float layer, got QuantSeparableConv2D"):
        kb.quantize_model(parts, inputs="uniform")


def test_a_model_that_is_quantized_in_part():
    part = kb.quantize_model(plain(), rules={"first": kb.Rule("bitpruning")})
    with raises("leave the layer as it is by a rule {'first': None}"):
        kb.quantize_model(part, kernel="uniform")
    for arguments in (
        {"rules": {"last": kb.Rule("uniform")}},
        {"kernel": "uniform", "rules": {"first": None}},
    ):
        both = kb.quantize_model(part, **arguments)
        kinds = {p.path: type(p.quantizer) for p in sites.places(both)}
        assert kinds == {"first": kb.BitPruning, "last": kb.Uniform}


@pytest.mark.parametrize("rules", [None, {}, {"first": None}, {"first": kb.Rule()}])
def test_no_quantizer_at_all(rules):
    with raises("quantize_model: expected a quantizer for kernels or inputs, or a rule that has"):
        kb.quantize_model(plain(), rules=rules)


def test_no_layer_that_can_be_quantized():
    model = keras.Sequential([keras.Input((5, 2)), layers.LSTM(3, name="memory")])
    with raises("expected at least one layer to quantize, got none with a quantized form among"):
        kb.quantize_model(model, kernel="uniform")
    with raises("expected at least one layer to quantize"):
        kb.quantize_model(plain(), kernel="uniform", rules={".*": None})


# Optimizers of one's own.


class Rewriter(Dull):
    """Rewrites its gain when adjusted and when frozen."""

    def adjust(self, state, site):
        return {"gain": np.float32(1.5)} if site.name == "first" else {}

    freeze = adjust


def own_loop(*optimizers):
    model, loss = dense_model(Rewriter()), keras.losses.SparseCategoricalCrossentropy()
    import tensorflow as tf

    for optimizer in optimizers:
        with tf.GradientTape() as tape:
            value = loss(Y, keras.ops.softmax(model(X, training=True)))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(value, variables), variables)
    return model


@pytest.mark.parametrize("step", [kb.adjust, kb.freeze])
@pytest.mark.parametrize("as_list", [False, True])
def test_an_optimizer_of_a_loop_forgets_what_was_rewritten(step, as_list):
    one, two = keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.01, momentum=0.9)
    model = own_loop(one, two)
    slots = {v.path: v for o in (one, two) for v in o.variables if "_kernel_quantizer_" in v.name}
    ours = [v for path, v in slots.items() if "first" in path]
    others = [v for path, v in slots.items() if "last" in path]
    assert len(ours) == len(others) == 3  # two moments and a momentum
    step(model)
    assert all(np.any(v) for v in ours)
    if as_list:
        step(model, [one, two])
    else:
        step(model, one)
        assert np.any(ours[-1])
        step(model, optimizer=two)
    assert not any(np.any(v) for v in ours)
    assert all(np.any(v) for v in others)


@pytest.mark.parametrize("step", ["adjust", "freeze"])
def test_something_that_is_no_optimizer(step):
    model = dense_model(Rewriter())
    for wrong in ("adam", 3, ["adam"], model):
        with raises(f"{step}: expected a Keras optimizer, got"):
            getattr(kb, step)(model, wrong)
    assert model.get_layer("first").kernel_host.state()["gain"] != 1.5


# Names and roles.


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("bit_pruning", "bitpruning"),
        ("BitPruning", "bitpruning"),
        ("bayesian-bits", "bayesian_bits"),
        ("bayesianbit", "bayesian_bits"),
        ("least_square_binary", "least_squares_binary"),
        ("unifrom", "uniform"),
        ("BSQ", "bsq"),
    ],
)
def test_a_name_that_was_meant(written, meant):
    with raises(f"got {written!r}; did you mean {meant!r}?"):
        quantizers.get(written)
    with raises(f"did you mean {meant!r}?"):
        kb.quantize_model(plain(), kernel=written)


def test_what_is_no_name():
    with pytest.raises(ValueError, match=r"got 'dorefa'$"):
        quantizers.get("dorefa")
    with pytest.raises(ValueError, match=r"got <class .*; did you mean BSQ\(\)\?"):
        quantizers.get(kb.BSQ)
    with pytest.raises(ValueError, match=r"got 8$"):
        quantizers.get(8)


@pytest.mark.parametrize(
    "layer", [lambda **k: QuantDense(3, **k), lambda **k: QuantConv2D(3, 3, **k),
              lambda **k: QuantSeparableConv2D(3, 3, **k)]
)  # fmt: skip
@pytest.mark.parametrize("method", ["bsq", kb.BSQ(bits=4)])
def test_a_method_for_kernels_on_inputs_of_a_layer(layer, method):
    with raises("layer 'wrong', input_quantizer: expected a quantizer for the input, got BSQ("):
        layer(input_quantizer=method, name="wrong")
    assert layer(kernel_quantizer=method).kernel_quantizer == quantizers.get(method)


def test_a_wrong_name_at_a_layer():
    with raises("layer 'wrong', kernel_quantizer: expected a quantizer, one of the names"):
        QuantDense(3, kernel_quantizer="bits", name="wrong")


# Bits that stay.


def test_freezing_says_that_kernels_stay_floats():
    q = kb.quantize_model(plain(), kernel="bayesian_bits", inputs="bayesian_bits")
    message = (
        r"freeze: 2 of 2 quantized kernels stay above 16 bits \(first, last\).*float32.*"
        "Train longer before freezing"
    )
    with pytest.warns(UserWarning, match=message) as found:
        kb.freeze(q)
    assert len(found) == 1
    assert found[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        kb.freeze(q)  # is told once


def test_freezing_says_nothing_of_kernels_that_are_codes():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        kb.freeze(kb.quantize_model(plain(), kb.BayesianBits(max_bits=16)))
        kb.freeze(kb.quantize_model(plain(), "bsq", "bayesian_bits"))  # inputs cost no bytes
    mixed = kb.quantize_model(plain(), "bitpruning", rules={"last": kb.Rule("bayesian_bits")})
    with pytest.warns(UserWarning, match=r"1 of 2 quantized kernels stay above 16 bits \(last\)"):
        kb.freeze(mixed)
