"""A run that is stopped, anywhere and several times, ends as if it had not been."""

import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from example_modules import EXAMPLES, example
from jax_process import ENVIRONMENT, needs_jax
from training_runs import (
    METHODS,
    STEPS,
    in_process,
    run,
    small,
    stopped_in,
    stopped_twice,
    tiny_model,
)

checkpoint = example("training.checkpoint")
folder = example("training.folder")
kinds = example("training.kinds")
trainer = example("training.trainer")

KIND = kinds.keras_3()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.keras")


@pytest.fixture
def eager():
    """Tracing takes longer than these few steps."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def place(settings):
    """What the last checkpoint says of the run, without the time it took."""
    found = checkpoint.load_newest(pathlib.Path(settings.model_dir) / "checkpoints", print)
    return {name: value for name, value in found[1].place.items() if name != "seconds"}


def close(one, other):
    """Equal, but for rounding of means over an epoch that was interrupted."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        if name in ("loss", "accuracy"):
            np.testing.assert_allclose(value, other[name], rtol=1e-5)
        else:
            assert value == other[name], name


@pytest.mark.parametrize("method", METHODS)
def test_stopped_twice_ends_the_same(eager, tiny, tmp_path, method):
    whole, broken = (
        small(tmp_path / name, export=str(tmp_path / f"{name}.kbits"), init_from=tiny,
              method=method, validation=0.0)
        for name in ("whole", "broken")
    )  # fmt: skip
    expected, found = run(KIND, whole), stopped_twice(KIND, broken, seed=method)
    assert found.weights_sha256 == expected.weights_sha256
    assert (tmp_path / "broken.kbits").read_bytes() == (tmp_path / "whole.kbits").read_bytes()
    assert found.steps == expected.steps == STEPS
    one, other = place(broken), place(whole)
    for ours, theirs in zip(one.pop("history"), other.pop("history"), strict=True):
        close(ours, theirs)
    assert one == other


def everything(model_dir, tiny, **changes):
    """A run with all that a checkpoint can hold: gates, the best epoch, momentum, a schedule."""
    options = {
        "method": "bayesian_bits",
        "input_method": "bayesian_bits",
        "optimizer": "sgd",
        "warmup": 3,
        "weight_decay": 0.01,
        "early_stopping": 5,
        "learn_epochs": 2,
        "batch_size": 512,
        "train_steps": None,
        "augment": "crop",
        "checkpoint_steps": 1,
    }
    return small(model_dir, init_from=tiny, **{**options, **changes})


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """An unbroken run: (settings, checksum)."""
    tf.config.run_functions_eagerly(True)
    settings = everything(tmp_path_factory.mktemp("whole"), tiny)
    return settings, run(KIND, settings).weights_sha256


@pytest.mark.parametrize(
    ("module", "name", "call", "after"),
    [
        (trainer, "first_values", 3, False),  # between learning and tuning
        (checkpoint.os, "fsync", 3, False),  # in the middle of writing
        (checkpoint, "save", 4, True),
        (folder, "save_model", 2, False),  # at the very end
    ],
)
def test_stopped_anywhere_ends_the_same(
    eager, tiny, whole, tmp_path, module, name, call, after, monkeypatch
):
    monkeypatch.setattr(trainer, "save_model", lambda *_: folder.save_model(*_))
    settings = everything(tmp_path, tiny)
    with stopped_in(module, name, call, after):
        run(KIND, settings)
    assert run(KIND, settings).weights_sha256 == whole[1]


def test_a_damaged_checkpoint_costs_only_time(eager, tiny, whole, tmp_path):
    settings, lines = everything(tmp_path, tiny), []
    with stopped_in(checkpoint, "save", call=4, after=True):
        run(KIND, settings)
    newest, before, *_ = checkpoint.files(tmp_path / "checkpoints")
    newest.write_bytes(newest.read_bytes()[:-100])
    assert run(KIND, settings, lines).weights_sha256 == whole[1]
    assert any("damaged" in line and newest.name in line for line in lines)
    assert any(line.startswith(f"going on from {before}") for line in lines)


def test_a_finished_run_is_not_trained_again(eager, whole, monkeypatch):
    settings, checksum = whole
    monkeypatch.setattr(trainer.Trainer, "_epoch", None)
    assert run(KIND, settings).weights_sha256 == checksum


def test_another_seed_ends_differently(eager, tiny, whole, tmp_path):
    """So that the tests above compare something."""
    assert run(KIND, everything(tmp_path, tiny, seed=1)).weights_sha256 != whole[1]


def test_killed_by_the_system(tiny, tmp_path):
    """As graphs, over processes: killed in the middle of learning, and again at a random moment."""
    changes = {"init_from": tiny, "method": "bsq", "train_steps": 150, "learn_epochs": 2,
               "validation": 0.0, "checkpoint_steps": 5}  # fmt: skip
    expected = run(KIND, small(tmp_path / "whole", **changes))
    broken = small(tmp_path / "broken", **changes)
    killed(broken, after=lambda steps: steps >= 20)
    killed(broken, after=lambda steps: True, wait=2.5 * np.random.default_rng().random())
    assert run(KIND, broken).weights_sha256 == expected.weights_sha256


def killed(settings, after, wait=0.0):
    """Start the program, and kill it `wait` seconds after its checkpoints have `after(steps)`."""
    home = pathlib.Path(settings.model_dir)
    home.mkdir(exist_ok=True)
    example("training.config_files").write_settings(settings, home / "settings.yaml")
    command = [sys.executable, EXAMPLES / "train.py", f"--model_dir={home}", "--mode=train"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        first = time.monotonic()
        while not after(newest(home)):
            assert process.poll() is None, process.communicate()[1][-3000:]
            assert time.monotonic() - first < 200
            time.sleep(0.02)
        time.sleep(wait)
    finally:
        process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def newest(home):
    found = checkpoint.files(home / "checkpoints")
    return int(found[0].stem.partition("-")[2]) if found else 0


@pytest.mark.long
@needs_jax
def test_on_jax(tmp_path):
    one, other = in_process("keras_3", tmp_path, "bayesian_bits", **ENVIRONMENT)["bayesian_bits"]
    assert one == other


@pytest.mark.long
def test_in_tf_keras(tmp_path):
    pytest.importorskip("tensorflow_model_optimization")
    found = in_process("tf_keras", tmp_path, "bsq", "bayesian_bits")
    assert len(found) == 2
    for method, (one, other) in found.items():
        assert one == other, method
