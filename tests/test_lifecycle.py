import keras
import numpy as np
import pytest
import tensorflow as tf
from dull import Dull
from keras import layers
from tiny import METHODS, batch, compiled, dense_model, inputs_like, predict

import kerasbits as kb
from kerasbits import sites
from kerasbits.layers import QuantDense

X, Y = batch()


def host_of(model, name="first", role="kernel"):
    return model.get_layer(name).hosts[role]


def state_of(model):
    return {(p.path, p.role): p.host.state() for p in sites.places(model)}


def assert_same_state(one, two):
    assert one.keys() == two.keys()
    for key in one:
        for name in one[key]:
            np.testing.assert_array_equal(one[key][name], two[key][name], err_msg=f"{key} {name}")


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return X[4 * index : 4 * index + 4], Y[4 * index : 4 * index + 4]


SOURCES = {
    "array": lambda: X,
    "tensor": lambda: tf.constant(X),
    "list of batches": lambda: [X[:4], X[4:]],
    "generator of pairs": lambda: ((X[i : i + 4], Y[i : i + 4]) for i in range(0, 16, 4)),
    "dataset": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(5),
    "dataset of inputs": lambda: tf.data.Dataset.from_tensor_slices(X).batch(5),
    "PyDataset": lambda: Batches(workers=1),
}


@pytest.mark.parametrize("source", SOURCES)
def test_calibrate_takes_any_data(source):
    model = dense_model(kb.Uniform(), kb.Uniform())
    kb.calibrate(model, SOURCES[source]())
    assert model.get_layer("first").input_grid().hi == np.abs(X).max()
    hidden = keras.Model(model.inputs[0], model.get_layer("first").output)
    hidden = predict(hidden, X)
    # The second layer saw the quantized output of the first while its range was still growing.
    assert model.get_layer("last").input_grid().hi == pytest.approx(hidden.max(), rel=0.05)
    assert model.get_layer("last").input_grid().lo == 0  # after a ReLU


def test_calibrate_one_batch_is_exact():
    model = dense_model(kb.Uniform(), kb.Uniform())
    kb.calibrate(model, X)
    hidden = keras.Model(model.inputs[0], model.get_layer("first").output)
    assert model.get_layer("last").input_grid().hi == predict(hidden, X).max()


def test_calibrate_stops_after_steps():
    model = dense_model(inputs=Dull())
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield X * len(taken)

    kb.calibrate(model, endless(), steps=3)
    assert len(taken) == 3
    assert host_of(model, role="input").state()["top"] == np.abs(X).max() * 3


def test_calibrate_batch_size():
    sizes = []

    class Spy(Dull):
        def observe(self, x, state, site):
            sizes.append(x.shape[0])
            return super().observe(x, state, site)

    kb.calibrate(dense_model(inputs=Spy()), X, steps=2, batch_size=7)
    assert sizes == [7, 7, 7, 7]  # two layers, two steps


def test_calibrate_starts_anew_and_ends_observing():
    model = dense_model(kb.Uniform(), kb.Uniform())
    kb.calibrate(model, 100 * X)
    kb.calibrate(model, X)
    assert model.get_layer("first").input_grid().hi == np.abs(X).max()
    model(1000 * X)
    assert model.get_layer("first").input_grid().hi == np.abs(X).max()


@pytest.mark.parametrize("name", METHODS)
def test_calibrate_sets_all_inputs_of_every_method(name):
    method = METHODS[name]
    model = dense_model(method, inputs_like(method))
    before = [v.numpy() for v in model.trainable_variables]
    kb.calibrate(model, X)
    kb.freeze(model)
    for layer in model.layers:
        grid = layer.input_grid()
        assert grid.bits >= 1
    for old, new in zip(before, model.trainable_variables, strict=True):
        if "latent" not in new.path:
            np.testing.assert_array_equal(old, new, err_msg=new.path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "at least one batch of data, got none"),
        ([X, np.full_like(X, np.nan)], "finite data, got NaN or inf in batch 2"),
        ([np.full_like(X, np.inf)], "finite data, got NaN or inf in batch 1"),
    ],
)
def test_calibrate_refuses_and_changes_nothing(data, message):
    model = dense_model(kb.BitPruning(), kb.Uniform())
    kb.calibrate(model, 3 * X)
    before = state_of(model)
    with pytest.raises(ValueError, match=message):
        kb.calibrate(model, data)
    assert_same_state(state_of(model), before)
    model(50 * X)
    assert_same_state(state_of(model), before)  # not observing any more


def test_calibrate_tells_the_shares():
    model = dense_model(Dull())
    kb.calibrate(model, X)
    assert [p.host.site.share for p in sites.places(model)] == [0.5, 0.5]


@pytest.mark.parametrize("name", METHODS)
def test_freeze_is_idempotent_and_silences_the_loss(name):
    method = METHODS[name]
    model = compiled(dense_model(method, inputs_like(method)))
    model.fit(X, Y, epochs=2, verbose=0)
    kb.freeze(model)
    once = state_of(model)
    kb.freeze(model)
    kb.adjust(model)
    assert_same_state(state_of(model), once)
    model(X, training=True)
    assert float(sum(model.losses, 0.0)) == 0
    for place in sites.places(model):
        bits = np.asarray(place.quantizer.widths(place.host.state(), place.host.site))
        np.testing.assert_array_equal(bits, np.round(bits))


def test_freeze_is_all_or_nothing():
    model = dense_model(Dull(), Dull())
    host_of(model, "last").assign({"gain": np.nan})
    before = state_of(model)
    with pytest.raises(ValueError, match="layer 'last', kernel: expected finite values in 'gain'"):
        kb.freeze(model)
    assert_same_state(state_of(model), before)
    host_of(model, "last").assign({"gain": 1.2})
    kb.freeze(model)
    frozen = [p.host.state()["fixed_bits"] for p in sites.places(model)]
    assert frozen == [4, 4, 3, 4]


@pytest.mark.parametrize("name", METHODS)
def test_diverged_training_is_refused_by_layer(name):
    model = dense_model(METHODS[name], inputs_like(METHODS[name]))
    kb.calibrate(model, X)
    variables = host_of(model, "last").trainable_variables
    for variable in variables:
        good = variable.numpy()
        variable.assign(np.full_like(good, np.nan))
        before = state_of(model)
        for change in (kb.freeze, kb.adjust):
            with pytest.raises(ValueError, match="layer 'last', kernel: expected finite"):
                change(model)
        assert_same_state(state_of(model), before)
        variable.assign(good)
    kb.freeze(model)


@pytest.mark.parametrize("name", METHODS)
def test_momentum_cannot_move_frozen_bits(name):
    """Adam goes on moving a variable whose gradient has become zero."""
    method = METHODS[name]
    if hasattr(method, "strength"):
        method = type(method)(strength=1.0)  # the bits are on the move
    model = compiled(dense_model(method, inputs_like(method)), keras.optimizers.Adam(0.05))
    model.fit(X, Y, epochs=3, verbose=0)
    kb.freeze(model)
    bits = [row.bits for row in kb.report(model).rows]
    inputs = [row.input_bits for row in kb.report(model).rows]
    before = predict(model, X)
    model.fit(X, Y, epochs=3, verbose=0)
    assert [row.bits for row in kb.report(model).rows] == bits
    assert [row.input_bits for row in kb.report(model).rows] == inputs
    assert np.any(predict(model, X) != before)  # the weights train on
    for layer, b in zip(model.layers, bits, strict=True):
        assert layer.packed_kernel().bits.mean() == b


def test_adjust_keeps_the_outputs():
    model = compiled(dense_model(kb.BSQ(bits=5, strength=1.0)), keras.optimizers.Adam(0.05))
    model.fit(X, Y, epochs=10, verbose=0)
    before, bits = predict(model, X), kb.report(model).average_bits
    kb.adjust(model)
    # Only the scale is rounded anew.
    np.testing.assert_allclose(predict(model, X), before, rtol=0, atol=1e-5)
    assert kb.report(model).average_bits < bits


class Rewriter(Dull):
    """Rewrites its gain when adjusted."""

    def adjust(self, state, site):
        return {"gain": np.float32(1.5)} if site.name == "first" else {}


@pytest.mark.parametrize("optimizer", [keras.optimizers.Adam, keras.optimizers.SGD])
def test_adjust_forgets_the_memory_of_what_it_rewrote(optimizer):
    kwargs = {"momentum": 0.9} if optimizer is keras.optimizers.SGD else {}
    model = compiled(dense_model(Rewriter()), optimizer(0.01, **kwargs))
    model.fit(X, Y, verbose=0)
    before = {id(v): v.numpy() for v in model.optimizer.variables}
    kb.adjust(model)
    zeroed = [v for v in model.optimizer.variables if np.any(v.numpy() != before[id(v)])]
    ours = [v for v in model.optimizer.variables if "first_kernel_quantizer_gain_" in v.name]
    assert [id(v) for v in zeroed] == [id(v) for v in ours]
    assert len(ours) == len(kwargs) or len(ours) == 2  # momentum; both moments
    assert not any(np.any(v.numpy()) for v in ours)
    assert any(np.any(v.numpy()) for v in model.optimizer.variables if v.name != "iteration")


class LongerName(Rewriter):
    """Has a second trained variable whose name begins with the name of the first."""

    def variables(self, site):
        specs = super().variables(site)
        return {**specs, "gain_too": specs["gain"]}

    def quantize(self, x, state, site, training=False, seed=None):
        return x * state["gain"] * state["gain_too"], {}


def test_names_that_begin_alike_are_told_apart():
    model = compiled(dense_model(LongerName()))
    model.fit(X, Y, verbose=0)
    kb.adjust(model)
    moments = {v.name: v.numpy() for v in model.optimizer.variables if "first_kernel_q" in v.name}
    assert len(moments) == 4
    for name, value in moments.items():
        assert bool(value) == ("gain_too" in name), name


def test_layers_of_one_path_are_told_apart():
    """Keras gives the layers of nested models their own, possibly equal, paths."""

    def block(name, quantizer):
        fc = QuantDense(6, kernel_quantizer=quantizer, name="first")
        x = keras.Input((6,))
        return keras.Model(x, fc(x), name=name)

    x = inputs = keras.Input((6,))
    one, two = block("one", Dull()), block("two", Rewriter())
    outputs = layers.Dense(3)(two(one(x)))
    model = compiled(keras.Model(inputs, outputs))
    model.fit(X, Y, verbose=0)
    gains = [v for v in model.trainable_variables if v.name == "gain"]
    slots = [v for v in model.optimizer.variables if "kernel_quantizer_gain_" in v.name]
    assert len(gains) == 2
    assert gains[0].path == gains[1].path
    assert len(slots) == 4
    kb.adjust(model)
    assert [bool(v.numpy()) for v in slots] == [True, True, False, False]


def test_lifecycle_without_an_optimizer():
    model = dense_model(Rewriter())
    kb.adjust(model)
    assert host_of(model).state()["gain"] == 1.5
    kb.freeze(model)
    compiled(model)  # an optimizer that is not built yet
    kb.adjust(model)


def test_models_without_quantizers_have_shares():
    kb.set_shares(keras.Sequential([keras.Input((6,)), layers.Dense(3)]))
