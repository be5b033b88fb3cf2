"""The training program: its modes, what it prints and writes, and how it fails."""

import json
import sys

import keras
import pytest
import tensorflow as tf
from absl import flags
from example_modules import example
from training_runs import tiny_model

import kerasbits as kb

define_flags = example("training.flags").define_flags
checkpoint = example("training.checkpoint")
datasets = example("datasets")
folder = example("training.folder")
kinds = example("training.kinds")
program = example("training.program")
running = example("training.running")
trainer = example("training.trainer")
watching = example("training.watching")
workers = example("training.workers")

SMALL = (
    "--dataset=digits",
    "--batch_size=16",
    "--train_steps=4",
    "--calibration_steps=2",
    "--checkpoint_steps=3",
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.keras")


@pytest.fixture(autouse=True, scope="module")
def eager():
    """Tracing takes longer than these few steps."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def call(*arguments, kind=kinds.keras_3):
    """Run the program in this process."""
    values = flags.FlagValues()
    define_flags(values)
    program.parse_flags("train", values, ["train.py", *map(str, arguments)])
    program.work("train", kind, values)


def result(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run from a new network to a file, and all that it printed."""
    home = tmp_path_factory.mktemp("run") / "new" / "folder"
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *text, **_: lines.append(" ".join(map(str, text))))
        call(*SMALL, f"--model_dir={home}", f"--export={home.parent / 'files' / 'm.kbits'}",
             "--method=bitpruning", "--tensorboard")  # fmt: skip
    return home, lines


def test_what_a_run_prints_and_writes(trained):
    home, lines = trained
    found = json.loads(lines[-1])
    file = home.parent / "files" / "m.kbits"
    assert found["steps"] == 12
    assert set(found["accuracy"]) == {"float", "quantized", "exported"}
    assert all(0 <= a <= 1 for a in found["accuracy"].values())
    assert found["accuracy"]["quantized"] == found["accuracy"]["exported"]
    assert found["files"]["export"] == {
        "path": str(file),
        "bytes": file.stat().st_size,
        "sha256": found["files"]["export"]["sha256"],
    }
    assert all(bits == int(bits) for bits in found["bits"].values())  # frozen
    assert {p.name for p in home.iterdir()} == {
        ".lock", "checkpoints", "float.keras", "logs", "model.keras", "settings.yaml"
    }  # fmt: skip
    for phase in ("float", "learn", "tune"):
        assert any(line.startswith(f"=== {phase}: 1 epoch") for line in lines)
    assert any(line.startswith("  step 3/4  loss ") for line in lines)


def test_the_saved_model_is_the_one_that_was_measured(trained):
    home, lines = trained
    model = keras.models.load_model(home / "model.keras")
    found = checkpoint.digest_of(model.variables)
    assert found == json.loads(lines[-1])["weights_sha256"]


def test_tensorboard_sees_losses_and_bits(trained):
    home, _ = trained
    steps = {}
    for phase in ("float", "learn", "tune"):
        (events,) = (home / "logs" / phase).glob("events*")
        for event in tf.compat.v1.train.summary_iterator(str(events)):
            for value in event.summary.value:
                steps[phase, value.tag] = event.step
    tags = {tag for phase, tag in steps if phase == "learn"}
    assert {"loss", "accuracy", "val_loss", "average_bits", "bits/conv1", "bits/logits"} <= tags
    assert ("float", "average_bits") not in steps
    last = {phase: steps[phase, "loss"] for phase in ("float", "learn", "tune")}
    assert last == {"float": 4, "learn": 8, "tune": 12}


def test_eval_measures_what_training_left(trained, capsys, monkeypatch):
    home, lines = trained
    monkeypatch.setattr(trainer.Trainer, "train", None)
    before = {p: p.stat().st_mtime_ns for p in home.iterdir()}
    call("--mode=eval", f"--model_dir={home}")
    found, expected = result(capsys), json.loads(lines[-1])
    assert found["accuracy"] == {**expected["accuracy"], "float": None}
    assert found["weights_sha256"] == expected["weights_sha256"]
    assert found["files"] == expected["files"]
    assert {p: p.stat().st_mtime_ns for p in home.iterdir()} == before


def test_export_writes_the_file_again(trained, capsys, monkeypatch, tmp_path):
    home, lines = trained
    monkeypatch.setattr(trainer.Trainer, "train", None)
    call("--mode=export", f"--model_dir={home}", f"--export={tmp_path / 'again.kbits'}")
    found = result(capsys)
    assert found["files"]["export"]["sha256"] == json.loads(lines[-1])["files"]["export"]["sha256"]
    assert found["accuracy"] == {"float": None, "quantized": None, "exported": None}


def test_the_float_model_can_be_started_from(trained, capsys, tmp_path):
    home, lines = trained
    call(*SMALL, "--mode=train", "--method=uniform", f"--init_from={home / 'float.keras'}",
         f"--model_dir={tmp_path}")  # fmt: skip
    found = result(capsys)
    assert found["accuracy"]["float"] == json.loads(lines[-1])["accuracy"]["float"]
    assert found["steps"] == 8
    assert not (tmp_path / "model.tflite").exists()


def test_interrupted_by_the_keyboard(tiny, tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.Trainer, "train", interrupt)
    with pytest.raises(SystemExit) as stopped:
        call(*SMALL, f"--init_from={tiny}", f"--model_dir={tmp_path}")
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "train: interrupted; the same command goes on from here\n"


# How it fails.


def refused(capsys, message, *arguments, status=1, **options):
    """One line that says `message`, and the status."""
    with pytest.raises(SystemExit) as stopped:
        call(*arguments, **options)
    assert stopped.value.code == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("train: ")
    assert message in lines[0]


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(trainer.Trainer, "train", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metod=bsq"], "Unknown command line flag 'metod'"),
        (["--method=magic"], "bitpruning"),
        (["--batch_size=0", "--model_dir=x"], "batch_size: expected a whole number of at least 1"),
        (["--learn_epochs=two", "--model_dir=x"], "learn_epochs"),
        (["train"], "expected flags only, got 'train'"),
        (["--notensorboard=3", "--model_dir=x"], "--notensorboard=3 does not take an argument"),
        ([], "model_dir"),
        (["--config_file=missing.yaml", "--model_dir=x"], "missing.yaml"),
        (["--params_override=metod=bsq", "--model_dir=x"], "method"),
    ],
)
def test_wrong_flags(capsys, no_training, arguments, message):
    refused(capsys, message, *arguments, status=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=fashion_mnist", "--data_dir={}/none"], "dataset-fashion-mnist"),
        (["--dataset=images", "--data_dir={}/none"], "none"),
        (["--batch_size=5000"], "batch"),
        (["--network=lenet5", "--image_size=2"], "'lenet5' cannot be made for images of 2x2x1"),
        (["--rules={{nothing: null}}"], "nothing"),
        (["--init_from={}/none.keras"], "init_from: expected a file"),
        (["--init_from={}/text.keras"], "init_from: '{}/text.keras' cannot be loaded"),
        (["--init_from={}/text.weights.h5"], "init_from: '{}/text.weights.h5' does not fit"),
        (["--model_dir={}/text.keras/run"], "'{}/text.keras/run/checkpoints': Not a directory"),
        (["--model_dir=/proc/run"], "'/proc/run/checkpoints'"),
        (["--export={}/text.keras/m.kbits"], "'{}/text.keras'"),
        (["--mode=eval"], "expected the model.keras of a finished training, got none"),
        (["--mode=export", "--export={}/m.kbits"], "expected the model.keras of a finished"),
        (["--distribute=multi_worker"], "TF_CONFIG"),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    capsys, no_training, tmp_path, arguments, message
):
    (tmp_path / "text.keras").write_text("no model")
    (tmp_path / "text.weights.h5").write_text("no weights")
    arguments = [text.format(tmp_path) for text in arguments]
    refused(capsys, message.format(tmp_path), *SMALL, f"--model_dir={tmp_path / 'run'}", *arguments)
    assert not list(tmp_path.rglob("checkpoint-*"))
    assert not list(tmp_path.rglob("*.kbits"))


def test_eval_of_a_file_that_is_not_there_is_refused(trained, capsys, tmp_path):
    home, _ = trained
    file = tmp_path / "m.kbits"
    message = f"export: expected the file '{file}', got none"
    refused(capsys, message, f"--model_dir={home}", "--mode=eval", f"--export={file}")


def test_a_damaged_model_is_refused(trained, capsys, tmp_path):
    home, _ = trained
    data = (home / "model.keras").read_bytes()
    (tmp_path / "model.keras").write_bytes(data[: len(data) // 2])
    message = f"model '{tmp_path / 'model.keras'}': cannot be loaded"
    refused(capsys, message, f"--model_dir={tmp_path}", "--mode=eval", "--dataset=digits")


def test_a_model_for_other_images_is_refused(capsys, no_training, tiny, tmp_path):
    message = "expected a model of (12, 12, 1) images and 10 classes, got one of (8, 8, 1)"
    start = f"--init_from={tiny}"
    refused(capsys, message, *SMALL, start, f"--model_dir={tmp_path}", "--image_size=12")


def test_without_tfmot(capsys, no_training, tmp_path, monkeypatch):
    for name in [n for n in sys.modules if n.startswith("kerasbits.tfmot")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(kb, "tfmot", raising=False)  # `from kerasbits import tfmot` would find it
    monkeypatch.setitem(sys.modules, "tensorflow_model_optimization", None)
    refused(capsys, "tfmot", *SMALL, f"--model_dir={tmp_path}", kind=kinds.tf_keras)


def test_other_settings_for_the_same_run_are_refused(trained, capsys, no_training):
    home, _ = trained
    refused(capsys, "seed", f"--model_dir={home}", "--seed=5", status=2)


def test_two_at_once_are_refused(capsys, no_training, tiny, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with folder.locked(tmp_path):
        refused(capsys, "expected no other process", *SMALL, f"--init_from={tiny}",
                f"--model_dir={tmp_path}")  # fmt: skip


def test_all_checkpoints_damaged(capsys, tiny, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "checkpoint-0000000004.npz").write_bytes(b"")
    refused(capsys, "damaged ones only", *SMALL, f"--init_from={tiny}", f"--model_dir={tmp_path}")


def test_a_checkpoint_of_another_network_is_refused(capsys, tmp_path):
    path = tiny_model(tmp_path / "start.keras")
    run = [f"--model_dir={tmp_path / 'run'}", "--mode=train"]
    call(*SMALL, f"--init_from={path}", *run)
    tiny_model(path, filters=3)
    refused(capsys, "/checkpoint-0000000008.npz': expected 'model/", *run)


def test_other_data_for_the_same_run_are_refused(capsys, tmp_path, trained):
    """As when images were added to a folder."""
    home, _ = trained
    newest = checkpoint.files(home / "checkpoints")[0]
    state = checkpoint.load(newest)
    (tmp_path / "checkpoints").mkdir()
    changed = checkpoint.Checkpoint(state.step, {**state.place, "data": "0"}, state.arrays)
    checkpoint.save(tmp_path / "checkpoints", changed)
    (tmp_path / "settings.yaml").write_bytes((home / "settings.yaml").read_bytes())
    refused(capsys, "was started with, got others", f"--model_dir={tmp_path}")


def test_a_loss_that_is_no_number_ends_the_run(capsys, tiny, tmp_path):
    refused(
        capsys,
        "learn: expected a finite loss",
        *SMALL,
        f"--init_from={tiny}",
        f"--model_dir={tmp_path}",
        "--method=uniform",
        "--optimizer=sgd",
        "--learning_rate=1e38",
    )
    assert not (tmp_path / "model.keras").exists()
