"""Training from wherever a run is to its end, epoch by epoch, with checkpoints on the way."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from datasets import Augment, Batches, Dataset, EvaluationBatches

from training import checkpoint, watching
from training.checkpoint import Arrays, Checkpoint, restore, values_of
from training.exporting import model_accuracy
from training.folder import FLOAT_MODEL, save_model
from training.kinds import Kind
from training.optimizing import compile_model, optimizer, schedule
from training.phases import FLOAT, LEARN, MODEL, Phase, build, first_values, phases
from training.settings import Settings
from training.workers import Workers

OPTIMIZER, BEST = "optimizer", "best"
"""Prefixes of the optimizer's variables, and of the best model's, in a checkpoint."""

CHECKPOINTS, LOGS = "checkpoints", "logs"
"""Folders in the folder of a run."""


@dataclasses.dataclass
class Place:
    """Where a run is; written into each checkpoint.

    Args:
        phase: the current phase.
        first: steps of the run before this phase.
        done: steps done in this phase.
        means: of loss and accuracy over the steps of an epoch that is not over.
        best: smallest validation loss of this phase, None before the first.
        waited: epochs since.
        over: whether the phase ended early.
        history: the logs of all epochs.
        float_accuracy: of the float model on the test images, once it is trained.
        seconds: of training.
        data: checksum of the training labels, by which other data are noticed.
    """

    phase: str = FLOAT
    first: int = 0
    done: int = 0
    means: dict[str, float] = dataclasses.field(default_factory=dict)
    best: float | None = None
    waited: int = 0
    over: bool = False
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    float_accuracy: float | None = None
    seconds: float = 0.0
    data: str = ""

    @property
    def step(self) -> int:
        """Steps of the run that are done."""
        return self.first + self.done

    def enter(self, phase: str) -> None:
        """Begin a phase."""
        self.phase, self.first, self.done = phase, self.step, 0
        self.means, self.best, self.waited, self.over = {}, None, 0, False


class Trainer:
    """One run: a network, float, quantized, frozen and tuned.

    Args:
        kind: which Keras.
        settings: what to do.
        data: what to learn from.
        workers: who takes part.
        say: told each line of progress.
    """

    def __init__(
        self,
        kind: Kind,
        settings: Settings,
        data: Dataset,
        workers: Workers,
        say: Callable[[str], None] = print,
    ):
        self.kind, self.settings, self.data, self.workers = kind, settings, data, workers
        self._say = say
        self._folder = pathlib.Path(settings.model_dir)
        self._batches = Batches(
            data.train, settings.batch_size, settings.seed, augment_of(settings, data)
        )
        self._phases = phases(settings, self._batches.steps_per_epoch)
        self._since = time.monotonic()
        self.place = Place(data=_checksum(data))
        self._source = "values of the phase before"  # as errors name what variables are set to

    def train(self) -> Any:
        """Do what is left of the run; the frozen and tuned model, not compiled.

        The model is made outside of the workers' scope, as a program that loads it would.
        """
        arrays, resumed = self._resume() if self.workers.chief else (None, False)
        arrays, resumed = self._as_chief(arrays, resumed)
        names = [phase.name for phase in self._phases]
        for phase in self._phases[names.index(self.place.phase) :]:
            if not resumed:
                arrays = first_values(self.kind, self.settings, self.data, phase.name, arrays)
                self.place.enter(phase.name)
                arrays, _ = self._as_chief(arrays)
            arrays = self._run(phase, arrays, resumed)
            resumed = False
        model = build(self.kind, self.settings, self.data, names[-1])
        restore(model.variables, MODEL, arrays, self._source)
        return model

    def _resume(self) -> tuple[Arrays | None, bool]:
        """Values of the newest checkpoint, if there is one, and whether there is."""
        found = checkpoint.load_newest(self._folder / CHECKPOINTS, self._say)
        if found is None:
            return None, False
        path, state = found
        self._source = f"checkpoint '{path}'"
        here, self.place = self.place.data, Place(**state.place)
        if self.place.data != here:
            raise ValueError(
                f"data set '{self.data.name}': expected the images that the run in "
                f"'{self._folder}' was started with, got others; use another --model_dir"
            )
        self._say(f"going on from {path}: phase {self.place.phase}, step {self.place.step}")
        return dict(state.arrays), True

    def _as_chief(self, arrays: Arrays | None, resumed: bool = False) -> tuple[Arrays | None, bool]:
        """The chief's place and values, on all workers: their disks and processors may differ."""
        if self.workers.workers == 1:
            return arrays, resumed
        place = {"run": dataclasses.asdict(self.place), "resumed": resumed}
        mine = Checkpoint(self.place.step, place, arrays or {})
        data = self.workers.from_chief(checkpoint.to_bytes(mine) if self.workers.chief else b"")
        theirs = checkpoint.from_bytes(data, "the chief's state")
        self.place = Place(**theirs.place["run"])
        return dict(theirs.arrays) or None, theirs.place["resumed"]

    def _run(self, phase: Phase, arrays: Arrays, resumed: bool) -> Arrays:
        """Train what is left of a phase; the values of its model at the end."""
        if not self._is_over(phase):
            self._say(f"=== {phase.name}: {_count(phase.epochs, 'epoch')}, {phase.steps} steps")
            model = self._compiled(phase, arrays, resumed)
            best = {name: a for name, a in arrays.items() if name.startswith(f"{BEST}/")}
            while not self._is_over(phase):
                logs = self._epoch(phase, model, best)
                best = self._judge(logs, model, best)
                self._save(model, best)
            arrays = {**values_of(model.variables, MODEL), **best}
        arrays = _best_or_last(arrays)
        if phase.name == FLOAT:
            self._finish_float(arrays)
        return arrays

    def _finish_float(self, arrays: Arrays) -> None:
        """Measure the float model, and save it for other runs to start from."""
        if not self.workers.chief:
            return
        model = build(self.kind, self.settings, self.data, FLOAT)
        restore(model.variables, MODEL, arrays, self._source)
        size = self.settings.eval_batch_size
        self.place.float_accuracy = model_accuracy(model, self.data.test, size)
        save_model(model, self._folder / FLOAT_MODEL)

    def _is_over(self, phase: Phase) -> bool:
        return self.place.over or self.place.done >= phase.steps

    def _compiled(self, phase: Phase, arrays: Arrays, resumed: bool) -> Any:
        settings, keras = self.settings, self.kind.keras
        with self.workers.scope():
            model = build(self.kind, settings, self.data, phase.name)
        model = self.workers.trained(model)
        rate = schedule(keras, phase.schedule, phase.rate, phase.steps, settings.warmup)
        with self.workers.scope():
            chosen = optimizer(
                keras, settings.optimizer, rate, model, settings.momentum, settings.weight_decay
            )
            jit = settings.jit_compile
            compile_model(keras, model, chosen, self.kind.jit_compile if jit is None else jit)
        restore(model.variables, MODEL, arrays, self._source)
        if resumed:
            restore(chosen.variables, OPTIMIZER, arrays, self._source)
        return model

    def _epoch(self, phase: Phase, model: Any, best: Arrays) -> dict[str, float]:
        """Train to the end of the current epoch; its logs."""
        place, settings = self.place, self.settings
        epoch, before = divmod(place.done, phase.steps_per_epoch)
        start = place.first + epoch * phase.steps_per_epoch
        end = min(start + phase.steps_per_epoch, place.first + phase.steps)

        def save(model: Any, done: int, means: dict[str, float]) -> None:
            place.done, place.means = start + done - place.first, means
            self._save(model, best)
            if not sys.stdout.isatty():  # there is a bar otherwise
                logs = "  ".join(f"{n} {v:.3f}" for n, v in sorted(means.items(), reverse=True))
                self._say(f"  step {done}/{end - start}  {logs}")

        def due(done: int) -> bool:
            step = start + done
            return step < end and step % settings.checkpoint_steps == 0

        history = model.fit(
            self.workers.dataset(self._batches, place.step, end),
            steps_per_epoch=end - place.step,
            initial_epoch=epoch,
            epochs=phase.epochs,
            **self._validation(),
            shuffle=False,  # the order is that of the batches
            verbose=0,
            callbacks=self._callbacks(phase, (phase.name, before, place.means, save, due), end),
        ).history
        place.done, place.means = end - place.first, {}
        logs = {name: float(values[-1]) for name, values in history.items()}
        place.history.append({"phase": phase.name, "epoch": epoch + 1, "step": end, **logs})
        return logs

    def _callbacks(self, phase: Phase, broken: tuple, end: int) -> list[Any]:
        ours = self.kind.callbacks
        found = [watching.callback(self.kind.keras, watching.Broken, *broken)]
        if phase.name == LEARN:
            found.append(ours.AdjustBits())
        if phase.name != FLOAT:
            found.append(ours.LogBits())
        if self.workers.chief:
            if self.settings.tensorboard:
                folder = self._folder / LOGS / phase.name
                found.append(
                    watching.callback(self.kind.keras, watching.Scalars, folder, lambda: end)
                )
            found.append(ours.Progress())
        return found

    def _in_order(self, source: Any) -> EvaluationBatches:
        size, parts = self.settings.eval_batch_size, self.workers.replicas
        return EvaluationBatches(source, -(-size // parts) * parts, parts)

    def _validation(self) -> dict[str, Any]:
        """What `model.fit` takes. Keras does not know how long data for several replicas are."""
        if self.data.validation is None:
            return {}
        batches = self._in_order(self.data.validation)
        return {
            "validation_data": self.workers.evaluation(batches),
            "validation_steps": batches.steps,
        }

    def _judge(self, logs: dict[str, float], model: Any, best: Arrays) -> Arrays:
        """Keep the values of the best epoch, and end the phase if there was none for long."""
        place, patience = self.place, self.settings.early_stopping
        if not patience:
            return best
        loss = logs["val_loss"]
        if not math.isfinite(loss):
            raise watching.DivergedError(
                f"{place.phase}: expected a finite validation loss, got {loss}; "
                "try a smaller learning rate"
            )
        if place.best is None or loss < place.best:
            place.best, place.waited = loss, 0
            return values_of(model.variables, f"{BEST}/{MODEL}")
        place.waited += 1
        place.over = place.waited >= patience
        return best

    def _save(self, model: Any, best: Arrays) -> None:
        """Write a checkpoint, if this is the worker that writes."""
        now = time.monotonic()
        self.place.seconds += now - self._since
        self._since = now
        arrays = {  # read by all: some variables of tf_keras are reduced over the workers for it
            **values_of(model.variables, MODEL),
            **values_of(model.optimizer.variables, OPTIMIZER),
            **best,
        }
        if not self.workers.chief:
            return
        state = Checkpoint(self.place.step, dataclasses.asdict(self.place), arrays)
        checkpoint.save(self._folder / CHECKPOINTS, state, self.settings.keep)


def _checksum(data: Dataset) -> str:
    labels = {"labels": data.train.labels, "shape": np.array(data.shape)}
    return checkpoint.digest(labels, data.name)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def augment_of(settings: Settings, data: Dataset) -> Augment | None:
    """The random changes of training images. Crops move an image by up to an eighth of its size."""
    if settings.augment == "default":
        return data.augment
    if settings.augment == "none":
        return None
    return Augment(max(1, min(data.shape[:2]) // 8), flip=settings.augment == "crop_and_flip")


def _best_or_last(arrays: Arrays) -> Arrays:
    """The values of the best epoch if they were kept, else those at hand."""
    best = {n.removeprefix(f"{BEST}/"): a for n, a in arrays.items() if n.startswith(f"{BEST}/")}
    return best or {n: a for n, a in arrays.items() if n.startswith(f"{MODEL}/")}
