"""The training program on two workers: who writes files, what happens when one is lost."""

import json
import os
import signal
import time

import pytest
from example_modules import EXAMPLES
from training_runs import tiny_model
from worker_processes import Running, start_two

FLAGS = {
    "dataset": "digits", "batch_size": 16, "learn_epochs": 1, "tune_epochs": 1, "train_steps": 30,
    "calibration_steps": 2, "method": "bitpruning", "distribute": "multi_worker",
}  # fmt: skip


def flags(folder, model, **changes):
    chosen = {**FLAGS, "init_from": model, "model_dir": folder, **changes}
    return [f"--{name}={value}" for name, value in chosen.items()]


def start(folder, model, **changes):
    """Two workers with folders of their own, as on two machines."""
    return start_two(lambda i: [EXAMPLES / "train.py", *flags(folder / str(i), model, **changes)])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.keras")


def wait_for_checkpoint(folder, process, seconds=120):
    end = time.monotonic() + seconds
    while not list(folder.glob("checkpoints/*.npz")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_lost_worker_ends_the_others_and_all_go_on(tmp_path, model):
    chief, other = start(tmp_path, model, checkpoint_steps=5)
    wait_for_checkpoint(tmp_path / "0", chief.process)
    os.kill(other.process.pid, signal.SIGKILL)
    status, out, errors = chief.end(120)
    assert status == 1
    line = errors.splitlines()[-1]
    assert line.startswith("train: lost another worker; start all of them again")
    assert "Traceback" not in errors
    assert other.end()[0] == -signal.SIGKILL

    chief, other = start(tmp_path, model, checkpoint_steps=50)
    out = chief.finish()
    assert "going on from" in out
    result = json.loads(out.splitlines()[-1])
    assert result["steps"] == 60  # learning and tuning
    assert "{" not in other.finish()
    written = sorted(os.listdir(tmp_path / "0"))
    assert "model.keras" in written
    assert "checkpoints" in written
    assert not (tmp_path / "1").exists()


@pytest.mark.long
def test_tf_keras_with_batch_norm(tmp_path):
    """Its variables are reduced over the workers when they are read."""
    chosen = {
        **FLAGS, "network": "lenet5", "mode": "train", "float_epochs": 1, "train_steps": 2,
        "checkpoint_steps": 1,
    }  # fmt: skip
    program = EXAMPLES / "train_tfmot.py"
    chief, other = start_two(
        lambda i: [
            program,
            *(f"--{k}={v}" for k, v in chosen.items()),
            f"--model_dir={tmp_path / str(i)}",
        ]
    )
    result = json.loads(chief.finish().splitlines()[-1])
    assert result["steps"] == 6
    assert other.finish() == ""
    assert (tmp_path / "0" / "model.keras").is_file()
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        ("", {}, "TF_CONFIG"),
        ("{}", {}, "no cluster"),
        (
            '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}',
            {"batch_size": 15},
            "batch_size: expected a multiple of 2, the workers, got 15",
        ),
    ],
)
def test_errors_before_training(tmp_path, model, config, changes, message):
    command = [EXAMPLES / "train.py", *flags(tmp_path / "run", model, **changes)]
    status, _, errors = Running(command, TF_CONFIG=config).end()
    assert status != 0
    assert message in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()
