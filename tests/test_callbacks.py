import re

import keras
import numpy as np
import pytest
from dull import Dull
from tiny import METHODS, batch, compiled, dense_model, inputs_like

import kerasbits as kb
from kerasbits import sites
from kerasbits.callbacks import AdjustBits, FreezeBits, LogBits, Progress
from kerasbits.quantizers import Uniform

X, Y = batch()


def fit(model, callbacks, **kwargs):
    return model.fit(X, Y, verbose=0, callbacks=callbacks, **{"epochs": 4, **kwargs})


class Record(keras.callbacks.Callback):
    """`fixed_bits` of the first layer in each epoch, and a copy of the logs."""

    def __init__(self):
        super().__init__()
        self.fixed, self.logs = [], []

    def on_train_batch_begin(self, batch, logs=None):
        state = self.model.get_layer("first").kernel_host.state()
        self.fixed.append(float(np.max(state.get("fixed_bits", -1))))

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))


def test_freeze_bits_at_its_epoch():
    model, record = compiled(dense_model(Dull())), Record()
    fit(model, [FreezeBits(2), record])
    assert record.fixed[:2] == [-1, -1]
    assert record.fixed[2] >= 1
    assert record.fixed[3] == record.fixed[2]


def test_freeze_bits_when_training_resumes_later():
    model, record = compiled(dense_model(Dull())), Record()
    fit(model, [FreezeBits(2), record], initial_epoch=3)
    assert record.fixed[0] >= 1
    early = compiled(dense_model(Dull()))
    fit(early, [FreezeBits(9)])
    assert early.get_layer("first").kernel_host.state()["fixed_bits"] == -1


def test_frozen_in_mid_training_the_loss_is_silent():
    model = compiled(dense_model(kb.BitPruning(strength=100.0)), keras.optimizers.SGD(1e-6))
    losses = fit(model, [FreezeBits(2)]).history["loss"]
    assert losses[1] > 100  # 8 bits on average, times the strength
    assert losses[2] < 10


class Counter(Dull):
    """Counts how often it is adjusted."""

    def adjust(self, state, site):
        return {"peak": state["peak"] + 1000}


@pytest.mark.parametrize(("every", "epochs", "times"), [(1, 4, 5), (2, 5, 3), (3, 2, 1)])
def test_adjust_bits(every, epochs, times):
    model = compiled(dense_model(Counter()))
    start = model.get_layer("first").kernel_host.state()["peak"]
    fit(model, [AdjustBits(every)], epochs=epochs)
    end = model.get_layer("first").kernel_host.state()["peak"]
    assert round(float(end - start) / 1000) == times  # and once at the end of training


def test_adjust_bits_drops_planes():
    model = compiled(dense_model(kb.BSQ(strength=1.0)), keras.optimizers.Adam(0.05))
    history = fit(model, [AdjustBits(2), LogBits()], epochs=10).history
    assert history["average_bits"][0] == 9  # with the sign
    assert history["average_bits"][-1] < 9
    assert history["average_bits"][2] == history["average_bits"][1]  # only every second epoch


@pytest.mark.parametrize("name", METHODS)
def test_log_bits_in_history(name):
    model = compiled(dense_model(METHODS[name], inputs_like(METHODS[name])))
    record = Record()
    history = fit(model, [LogBits(), record], epochs=2).history
    report = kb.report(model)
    assert history["average_bits"][-1] == report.average_bits
    assert history["weight_kib"][-1] == report.weight_bytes / 1024
    assert history["bops"][-1] == report.bops
    for row in report.rows:
        assert history[f"bits/{row.name}"][-1] == row.bits
    assert len(history["bops"]) == 2
    assert set(record.logs[0]) == set(history)  # callbacks after it see the numbers too


def test_float_layers_are_not_logged():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(4, name="plain"),
            kb.layers.QuantDense(3, kernel_quantizer="uniform", name="fc"),
        ]
    )
    history = fit(compiled(model), [LogBits()], epochs=1).history
    assert "bits/fc" in history
    assert "bits/plain" not in history


@pytest.mark.parametrize("callback", [AdjustBits(), FreezeBits(5), LogBits()])
def test_shares_are_known_from_the_start(callback):
    model = compiled(dense_model(Dull()))
    assert {p.host.site.share for p in sites.places(model)} == {1.0}
    fit(model, [callback], epochs=1)
    assert {p.host.site.share for p in sites.places(model)} == {0.5}


@pytest.mark.parametrize("every", [0, -1, 1.5, True, None])
def test_adjust_bits_arguments(every):
    with pytest.raises(ValueError, match="AdjustBits: expected every >= 1 epochs, got"):
        AdjustBits(every)


@pytest.mark.parametrize("epoch", [-1, 0.5, False, None])
def test_freeze_bits_arguments(epoch):
    with pytest.raises(ValueError, match="FreezeBits: expected epoch >= 0, got"):
        FreezeBits(epoch)


def test_a_diverged_run_stops_at_freezing_with_the_layer():
    model = compiled(dense_model(kb.BitPruning()))
    model.get_layer("last").kernel_host.assign({"bits": np.nan})
    with pytest.raises(ValueError, match="layer 'last', kernel: expected finite values in 'bits'"):
        fit(model, [FreezeBits(0)])


def test_progress_prints_a_line_an_epoch(capsys):
    model = compiled(dense_model(Uniform(4), Uniform(8)), metrics=["accuracy"])
    x, y = batch()
    model.fit(x, y, epochs=2, verbose=0, validation_data=(x, y), callbacks=[Progress()])
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    for line in lines:
        assert re.search(r"\d s  loss \S+  accuracy \S+  val_loss \S+  val_accuracy", line)
        assert line.endswith("4.00 bits  0.1 KiB")  # 2 x 32 bytes of codes


def test_progress_leaves_bits_out_for_float_models(capsys):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    compiled(model).fit(*batch(), verbose=0, callbacks=[Progress()])
    assert "bits" not in capsys.readouterr().out
