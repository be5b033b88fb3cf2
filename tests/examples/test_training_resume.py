"""A run that is stopped, anywhere and several times, ends as if it had not been."""

import contextlib
import random

import numpy as np
import pytest
import tensorflow as tf
from example_modules import example
from training_runs import METHODS, small, tiny_model

checkpoint = example("training.checkpoint")
folder = example("training.folder")
kinds = example("training.kinds")
running = example("training.running")
trainer = example("training.trainer")
watching = example("training.watching")

STEPS = 12  # learning and tuning, 6 each


class Stop(BaseException):
    """In place of the signal that ends a process: nothing may catch it."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.keras")


@pytest.fixture(autouse=True)
def eager():
    """Tracing takes longer than these few steps."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def run(settings, lines=None):
    return running.run(kinds.keras_3(), settings, say=(lambda x: lines.append(x)) if lines is not None
                       else lambda x: None)  # fmt: skip


@contextlib.contextmanager
def stopped_after(steps):
    """Stop at the end of a step, after its checkpoint if it has one."""
    original = watching.Broken.on_train_batch_end
    seen = []

    def counted(self, batch, logs=None):
        original(self, batch, logs)
        seen.append(batch)
        if len(seen) == steps:
            raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(watching.Broken, "on_train_batch_end", counted)
        yield


@contextlib.contextmanager
def stopped_in(module, name, call=1, after=False):
    """Stop before (or after) a call of a function."""
    original = getattr(module, name)
    calls = []

    def counted(*arguments, **options):
        calls.append(name)
        if len(calls) == call and not after:
            raise Stop
        result = original(*arguments, **options)
        if len(calls) == call:
            raise Stop
        return result

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(module, name, counted)
        yield


def place(settings):
    """What the last checkpoint says of the run, without the time it took."""
    _, state = checkpoint.load_newest(
        trainer.pathlib.Path(settings.model_dir) / "checkpoints", print
    )
    return {name: value for name, value in state.place.items() if name != "seconds"}


def close(one, other):
    """Equal, but for rounding of means over an epoch that was interrupted."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        if name in ("loss", "accuracy"):
            np.testing.assert_allclose(value, other[name], rtol=1e-5)
        else:
            assert value == other[name], name


@pytest.mark.parametrize("method", METHODS)
def test_stopped_twice_ends_the_same(tiny, tmp_path, method):
    changes = {"init_from": tiny, "method": method, "mode": "train", "tensorboard": False}
    whole = small(tmp_path / "whole", export=str(tmp_path / "whole.kbits"), **changes)
    broken = small(tmp_path / "broken", export=str(tmp_path / "broken.kbits"), **changes)
    expected = run(whole)
    first = random.Random(method).randint(1, STEPS - 2)
    with stopped_after(first):
        run(broken)
    with stopped_after(random.Random(method).randint(1, STEPS - first)):
        run(broken)
    found = run(broken)
    assert found.weights_sha256 == expected.weights_sha256
    assert (tmp_path / "broken.kbits").read_bytes() == (tmp_path / "whole.kbits").read_bytes()
    assert found.steps == expected.steps == STEPS
    one, other = place(broken), place(whole)
    for ours, theirs in zip(one.pop("history"), other.pop("history"), strict=True):
        close(ours, theirs)
    assert one == other


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """An unbroken run with all that a checkpoint can hold: gates, early stopping, momentum."""
    return everything(tmp_path_factory.mktemp("whole"), tiny)


def everything(model_dir, tiny, **changes):
    return small(model_dir, init_from=tiny, mode="train", method="bayesian_bits",
                 input_method="bayesian_bits", optimizer="sgd", warmup=3, weight_decay=0.01,
                 early_stopping=5, learn_epochs=2, batch_size=256, train_steps=None, augment="crop",
                 checkpoint_steps=3, **changes)  # fmt: skip


@pytest.fixture(scope="module")
def expected(whole):
    tf.config.run_functions_eagerly(True)
    return run(whole).weights_sha256


@pytest.mark.parametrize(
    ("module", "name", "call", "after"),
    [
        (trainer, "first_values", 1, False),
        (trainer, "first_values", 2, True),  # between float and learning
        (trainer, "first_values", 3, False),  # between learning and tuning
        (trainer, "build", 4, True),
        (checkpoint.os, "fsync", 3, False),  # in the middle of writing
        (checkpoint.os, "replace", 2, False),
        (checkpoint.os, "replace", 3, True),
        (checkpoint, "save", 4, True),
        (folder, "save_model", 1, False),
        (folder.os, "replace", 9, True),
    ],
)
def test_stopped_anywhere_ends_the_same(tiny, whole, expected, tmp_path, module, name, call, after):
    settings = everything(tmp_path, tiny)
    with stopped_in(module, name, call, after):
        run(settings)
    assert run(settings).weights_sha256 == expected


def test_a_damaged_checkpoint_costs_only_time(tiny, whole, expected, tmp_path):
    settings, lines = everything(tmp_path, tiny), []
    with stopped_in(checkpoint, "save", call=4, after=True):
        run(settings)
    newest, before, *_ = checkpoint.files(tmp_path / "checkpoints")
    newest.write_bytes(newest.read_bytes()[:-100])
    assert run(settings, lines).weights_sha256 == expected
    assert any("damaged" in line for line in lines)
    assert any(str(before) in line for line in lines)


def test_a_finished_run_is_not_trained_again(tiny, whole, expected, monkeypatch):
    monkeypatch.setattr(trainer.Trainer, "_epoch", None)
    assert run(whole).weights_sha256 == expected


def test_another_seed_ends_differently(tiny, expected, tmp_path):
    """So that the tests above compare something."""
    assert run(everything(tmp_path, tiny, seed=1)).weights_sha256 != expected
