"""The callback that steers bits to a budget."""

import keras
import numpy as np
import pytest

import kerasbits as kb
from kerasbits import sites
from kerasbits.callbacks import AdjustBits, Budget, LogBits


def problem():
    """Points of five classes, and a network of 4,480 weights that learns them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1024, 16)).astype(np.float32)
    scores = np.maximum(x @ rng.normal(size=(16, 4)), 0) @ rng.normal(size=(4, 5))
    return x, scores.argmax(-1)


X, Y = problem()


def quantized(kernel, inputs=None):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(n, "relu") for n in (64, 48)]
    model = keras.Sequential([keras.Input((16,)), *layers, keras.layers.Dense(5)])
    q = kb.quantize_model(model, kernel, inputs or kb.Uniform(8))
    kb.calibrate(q, X[:256])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    q.compile(keras.optimizers.Adam(3e-3), loss)
    return q


def fit(q, callbacks, epochs=16):
    return q.fit(X, Y, batch_size=32, epochs=epochs, verbose=0, callbacks=callbacks).history


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "kernel",
    [
        kb.BitPruning(strength=0.01),
        pytest.param(kb.BSQ(strength=1e-3), marks=LONG),
        pytest.param(kb.BayesianBits(1e-3, cost="const"), marks=LONG),
    ],
    ids=lambda kernel: type(kernel).__name__,
)
def test_the_frozen_model_meets_the_budget(kernel):
    adjusting = [AdjustBits()] if isinstance(kernel, kb.BSQ) else []
    q = quantized(kernel)
    size = int(0.7 * kb.report(q, frozen=True).weight_bytes)
    history = fit(q, [*adjusting, Budget(size=size), LogBits()])
    promised = history["frozen_kib"][-1] * 1024
    assert promised <= size
    kb.freeze(q)
    assert kb.report(q).weight_bytes == promised
    assert history["pressure"][0] > 1  # more than its strength alone


def test_a_strength_that_is_too_large_is_eased():
    free, steered = quantized(kb.BitPruning(strength=1.0)), quantized(kb.BitPruning(strength=1.0))
    size = 0.8 * kb.report(free).weight_bytes
    fit(free, [])
    assert fit(steered, [Budget(size=size)])["pressure"][-1] < 1
    sizes = [kb.report(q, frozen=True).weight_bytes for q in (free, steered)]
    assert sizes[0] < sizes[1] <= size


def test_bit_operations_press_on_inputs_too():
    q = quantized(kb.BitPruning(strength=1e-3), kb.BitPruning(strength=1e-3))
    bops = 0.4 * kb.report(q).bops
    with pytest.warns(UserWarning, match=r"bit operations of .* train longer"):
        fit(q, [Budget(bops=bops)], epochs=2)
    places = list(sites.places(q))
    shares = [place.host.site.share for place in places]
    kb.set_shares(q)
    assert shares == [place.host.site.share for place in places]  # the pressure is taken away
    watched = Watch()
    fit(q, [callback := Budget(size=1e6, bops=bops), watched], epochs=3)
    assert callback.pressure > 1
    assert all(now > share for now, share in zip(watched.shares, shares, strict=True))


class Watch(keras.callbacks.Callback):
    """Shares in the last epoch."""

    def on_train_batch_begin(self, batch, logs=None):
        self.shares = [place.host.site.share for place in sites.places(self.model)]


def test_nothing_of_the_model_changes_by_asking():
    q = quantized(kb.BitPruning())
    fit(q, [], epochs=1)
    before = [np.asarray(v) for v in q.variables]
    real, whole = kb.report(q), kb.report(q, frozen=True)
    for value, variable in zip(before, q.variables, strict=True):
        np.testing.assert_array_equal(value, np.asarray(variable))
    assert any(row.bits != round(row.bits) for row in real.rows)
    assert all(row.bits == round(row.bits) for row in whole.rows)
    kb.freeze(q)
    assert kb.report(q) == whole


@pytest.mark.parametrize("given", [{"size": 0}, {"size": True}, {"bops": float("nan")}, {}])
def test_bad_budgets(given):
    with pytest.raises(ValueError, match="Budget: expected"):
        Budget(**given)


def test_what_cannot_be_steered():
    with pytest.raises(ValueError, match="expected quantizers that learn bits"):
        fit(quantized(kb.Uniform(4)), [Budget(size=1000)], epochs=1)
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(8, name="fc")])
    model.add(keras.layers.Dense(5, name="top"))
    q = kb.quantize_model(model, kb.Uniform(8), None, rules={"fc": kb.Rule(kernel=kb.BitPruning())})
    q.compile("sgd", "mse")
    with pytest.raises(ValueError, match="above what layers take that learn no bits, 64 bytes"):
        fit(q, [Budget(size=30)], epochs=1)
