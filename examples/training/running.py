"""What a program does in each mode: train, evaluate, export."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import datasets

import kerasbits as kb
from training import checkpoint, config_files, exporting, folder
from training.kinds import Kind
from training.phases import LEARN, build
from training.settings import Settings
from training.trainer import CHECKPOINTS, Trainer
from training.workers import OneWorker, on_tensorflow, workers_of

TRAINS = ("train", "train_and_eval")
EVALUATES = ("eval", "train_and_eval")


@dataclasses.dataclass
class Outcome:
    """What is known when a program ends; None where its mode did not ask.

    Args:
        model: path of the trained model.
        file: path of the exported file.
        steps: of the training.
        seconds: of the training, over all its interruptions.
        float_accuracy, accuracy, file_accuracy: on the test images, from 0 to 1, of the float
            model, the quantized one, and the exported file.
        report: bits and bytes of the quantized model.
        weights_sha256: checksum of all variables of the quantized model, in their order.
    """

    model: pathlib.Path | None = None
    file: pathlib.Path | None = None
    steps: int | None = None
    seconds: float | None = None
    float_accuracy: float | None = None
    accuracy: float | None = None
    file_accuracy: float | None = None
    report: kb.Report | None = None
    weights_sha256: str | None = None


def run(kind: Kind, settings: Settings, say: Callable[[str], None] = print) -> Outcome | None:
    """Do what the settings ask for. None on workers that are not the chief.

    All that can be checked before training is checked before training.

    Raises:
        ValueError: settings, data or files that do not fit; a training that diverged.
        ImportError: packages that an export needs are missing.
        OSError: a folder or file that cannot be used.
    """
    if settings.deterministic and on_tensorflow():
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    home = pathlib.Path(settings.model_dir)
    outcome = Outcome(model=home / folder.MODEL)
    _check_files(settings, outcome.model)
    workers = workers_of(settings) if settings.mode in TRAINS else OneWorker()
    data = datasets.load(
        settings.dataset,
        settings.data_dir,
        settings.validation,
        settings.seed,
        settings.image_size,
    )
    if settings.export and settings.mode != "eval" and workers.chief:
        folder.make_writable(pathlib.Path(settings.export).parent)
    if settings.mode in TRAINS:
        with workers.together():
            model = _train(kind, settings, data, workers, say, outcome)
    else:
        model = _load(kind, outcome.model)
    if not workers.chief:
        return None
    _conclude(model, settings, data, say, outcome)
    return outcome


def _check_files(settings: Settings, model: pathlib.Path) -> None:
    """What must be there before anything is done."""
    if settings.export:
        exporting.check_possible()
    if settings.mode not in TRAINS and not model.is_file():
        raise ValueError(
            f"model_dir '{model.parent}': expected the {model.name} of a finished training, "
            "got none; train it first"
        )
    if settings.export and settings.mode == "eval" and not pathlib.Path(settings.export).is_file():
        raise ValueError(
            f"export: expected the file '{settings.export}', got none; write it by --mode=export"
        )


def _load(kind: Kind, path: pathlib.Path) -> Any:
    """A saved model.

    Raises:
        ValueError: the file is damaged, or of the other Keras.
    """
    try:
        return kind.load_model(str(path))
    except Exception as error:  # Keras raises whatever the file leads it to
        problem = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"model '{path}': cannot be loaded ({problem})") from error


def _train(kind, settings, data, workers, say, outcome: Outcome) -> Any:
    """Train to the end and save; the model."""
    home = pathlib.Path(settings.model_dir)
    quiet = say if workers.chief else lambda line: None
    if workers.chief:
        folder.make_writable(home / CHECKPOINTS)
    with folder.locked(home) if workers.chief else contextlib.nullcontext():
        build(kind, settings, data, LEARN)  # finds out whether the network and the rules fit
        trainer = Trainer(kind, settings, data, workers, quiet)
        if workers.chief:
            config_files.write_settings(settings, home / config_files.SAVED)
        model = trainer.train()
        if workers.chief:
            folder.save_model(model, outcome.model)
    outcome.steps, outcome.seconds = trainer.place.step, trainer.place.seconds
    outcome.float_accuracy = trainer.place.float_accuracy
    return model


def _conclude(model, settings, data, say, outcome: Outcome) -> None:
    """Export and evaluate, as the mode wants."""
    size = settings.eval_batch_size
    outcome.report = kb.report(model)
    outcome.weights_sha256 = checkpoint.digest_of(model.variables)
    if settings.mode != "eval":
        kb.summary(model)
    if settings.export and settings.mode != "eval":
        say(f"exporting to {settings.export}, and comparing the file with the model")
        say(exporting.export(model, settings, data).headline())
    if settings.mode in EVALUATES:
        outcome.accuracy = exporting.model_accuracy(model, data.test, size)
        say(f"accuracy of the model: {100 * outcome.accuracy:.2f} %")
    path = pathlib.Path(settings.export) if settings.export else None
    if path is None or not path.is_file():
        return
    outcome.file = path
    if settings.mode in EVALUATES:
        outcome.file_accuracy = exporting.file_accuracy(str(path), data.test, size)
        say(f"accuracy of {path}: {100 * outcome.file_accuracy:.2f} %")
