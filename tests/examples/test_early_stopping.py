"""Early stopping: which epoch is kept, and when a run ends."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from example_modules import example
from training_runs import small, tiny_model

checkpoint = example("training.checkpoint")
datasets = example("datasets")
kinds = example("training.kinds")
running = example("training.running")
trainer = example("training.trainer")
workers = example("training.workers")


@pytest.fixture(autouse=True, scope="module")
def eager():
    """Tracing takes longer than these few steps."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def digits():
    return datasets.load("digits")


def judged(tmp_path, digits, losses, patience):
    """What is kept after epochs with these validation losses: (Place, values)."""
    settings = small(tmp_path, early_stopping=patience)
    run = trainer.Trainer(kinds.keras_3(), settings, digits, workers.OneWorker())
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    best = {}
    for epoch, loss in enumerate(losses):
        model.layers[0].kernel.assign([[float(epoch)]])
        best = run._judge({"val_loss": loss}, model, best)
    return run.place, [float(a.item()) for a in best.values()]


def test_the_best_epoch_is_kept(tmp_path, digits):
    place, best = judged(tmp_path, digits, [3.0, 1.0, 2.0], patience=2)
    assert (place.best, place.waited, place.over, best) == (1.0, 1, False, [1.0])
    place, best = judged(tmp_path, digits, [3.0, 1.0, 2.0, 1.0], patience=2)
    assert (place.best, place.waited, place.over, best) == (1.0, 2, True, [1.0])
    place, best = judged(tmp_path, digits, [3.0, 4.0, 2.0, 5.0], patience=2)
    assert (place.best, place.waited, place.over, best) == (2.0, 1, False, [2.0])


def test_nothing_is_kept_without_early_stopping(tmp_path, digits):
    place, best = judged(tmp_path, digits, [1.0, 2.0, 3.0], patience=0)
    assert (place.best, place.over, best) == (None, False, [])


def test_a_run_that_stops_early_ends_with_its_best(tmp_path, monkeypatch):
    losses = iter([3.0, 1.0, 2.0, 2.0, 0.0])
    judge = trainer.Trainer._judge
    monkeypatch.setattr(trainer.Trainer, "_judge", lambda self, logs, *rest: judge(
        self, {**logs, "val_loss": next(losses)}, *rest))  # fmt: skip
    tiny = tiny_model(tmp_path / "tiny.keras")
    settings = small(tmp_path, init_from=tiny, mode="train", method="uniform", learn_epochs=6,
                     tune_epochs=0, train_steps=None, batch_size=512, early_stopping=2)  # fmt: skip
    outcome = running.run(kinds.keras_3(), settings, say=lambda line: None)
    _, state = checkpoint.load_newest(tmp_path / "checkpoints", print)
    assert state.place["over"]
    assert len(state.place["history"]) == 4
    assert outcome.steps == state.step == 8
    kept = state.arrays["best/model/tiny/conv1/kernel"]
    final = keras.models.load_model(tmp_path / "model.keras").layers[0].kernel
    np.testing.assert_array_equal(final, kept)
    assert not np.array_equal(kept, state.arrays["model/tiny/conv1/kernel"])
