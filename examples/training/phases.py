"""The phases of a training, and the model that each of them trains.

    float      the network as it is
    learn      quantized: weights, ranges and bits
    tune       the same with frozen bits

Only values pass from one phase to the next, so that a model may be made on one device and trained
on several, and a run that is resumed needs nothing of the phases before.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from datasets import Batches, Dataset
from networks import NETWORKS

import kerasbits as kb
from training.checkpoint import Arrays, restore, values_of
from training.kinds import Kind
from training.quantizing import recipe
from training.settings import Settings
from training.values import SettingError

FLOAT, LEARN, TUNE = "float", "learn", "tune"
MODEL = "model"
"""Prefix of a model's variables among the arrays of a checkpoint."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a training with its own optimizer.

    Args:
        name: "float", "learn" or "tune".
        steps: most steps it takes.
        steps_per_epoch: steps of an epoch; the last one may be cut short.
        rate: peak of the learning rate.
        schedule: of the learning rate.
    """

    name: str
    steps: int
    steps_per_epoch: int
    rate: float
    schedule: str

    @property
    def epochs(self) -> int:
        """Epochs, the last of which may be cut short."""
        return -(-self.steps // self.steps_per_epoch)


def phases(settings: Settings, steps_per_epoch: int) -> tuple[Phase, ...]:
    """The phases in their order. Float training has no steps where a trained model is given."""
    learn_rate = settings.learn_learning_rate or settings.learning_rate / 2
    chosen = (
        (FLOAT, settings.float_epochs, settings.learning_rate, settings.schedule),
        (LEARN, settings.learn_epochs, learn_rate, settings.learn_schedule),
        (TUNE, settings.tune_epochs, settings.tune_learning_rate or learn_rate, settings.schedule),
    )
    found = []
    for name, epochs, rate, schedule in chosen:
        steps = epochs * steps_per_epoch
        if settings.train_steps is not None:
            steps = min(steps, settings.train_steps)
        if name == FLOAT and settings.init_from:
            steps = 0
        found.append(Phase(name, steps, steps_per_epoch, rate, schedule))
    return tuple(found)


def build(kind: Kind, settings: Settings, data: Dataset, phase: str) -> Any:
    """The model of a phase, not compiled, with values that depend on the settings alone.

    Raises:
        ValueError: the network does not take such images, or cannot be quantized as asked.
    """
    kind.keras.utils.set_random_seed(settings.seed)
    model = _network(kind, settings, data)
    return model if phase == FLOAT else _quantized(kind, settings, model)


def first_values(
    kind: Kind, settings: Settings, data: Dataset, phase: str, before: Arrays | None
) -> Arrays:
    """What the variables of a phase start from.

    Float: as initialized, or as trained elsewhere. Learning: the weights of the float model, and
    input ranges from training images as they are. Tuning: the learned bits, frozen.

    Args:
        kind, settings, data: of the run.
        phase: that begins.
        before: values at the end of the phase before it; None for the first.
    """
    model = build(kind, settings, data, FLOAT if phase == LEARN else phase)
    if before is not None:
        restore(model.variables, MODEL, before, f"phase '{phase}'")
    if phase == TUNE:
        kb.freeze(model)
    if phase == LEARN:
        model = _quantized(kind, settings, model)
        batches = Batches(data.train, settings.batch_size, settings.seed)
        kb.calibrate(model, [batches.batch(i)[0] for i in range(settings.calibration_steps)])
    return values_of(model.variables, MODEL)


def _quantized(kind: Kind, settings: Settings, model: Any) -> Any:
    chosen = recipe(settings, model)
    return kind.quantize_model(
        model,
        chosen.kernel,
        chosen.inputs,
        chosen.rules,
        strict=settings.strict,
        rate=settings.quantizer_rate,
    )


def _network(kind: Kind, settings: Settings, data: Dataset) -> Any:
    start = settings.init_from
    if start is not None and not pathlib.Path(start).is_file():
        raise SettingError("init_from", f"expected a file, got none at '{start}'")
    try:
        if start is not None and start.endswith(".keras"):
            model = kind.load_model(start)
        else:
            make = NETWORKS[settings.network]
            model = make(data.shape, data.classes, keras=kind.keras, **settings.network_options)
    except (ValueError, TypeError, OSError) as error:
        problem = str(error).strip().partition("\n")[0]
        if start is not None and start.endswith(".keras"):
            raise SettingError("init_from", f"'{start}' cannot be loaded ({problem})") from error
        shape = "x".join(map(str, data.shape))
        raise SettingError(
            "network", f"'{settings.network}' cannot be made for images of {shape} ({problem})"
        ) from error
    if start is not None and start.endswith(".weights.h5"):
        _load_weights(model, start)
    _check_ends(model, data)
    return model


def _load_weights(model: Any, path: str) -> None:
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        problem = str(error).strip().partition("\n")[0]
        raise SettingError(
            "init_from", f"'{path}' does not fit the network '{model.name}' ({problem})"
        ) from error


def _check_ends(model: Any, data: Dataset) -> None:
    wanted = (*data.shape, data.classes)
    found = (*model.input_shape[1:], model.output_shape[-1])
    if wanted != found:
        raise SettingError(
            "init_from",
            f"expected a model of {data.shape} images and {data.classes} classes, "
            f"got one of {found[:-1]} and {found[-1]}",
        )
