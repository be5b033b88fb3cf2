"""Who takes part in a training: one process with one device, or several (`distribution`)."""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar, Protocol

import keras
from datasets import Batches, EvaluationBatches

from training.settings import Settings


class Workers(Protocol):
    """What a trainer asks of those who take part. All of them run the same program.

    Attributes:
        chief: whether this process is the one that writes files and says what happens.
        workers: number of processes.
        replicas: number of equal parts that a batch is cut into, over all processes.
    """

    chief: bool
    workers: int
    replicas: int

    def scope(self) -> contextlib.AbstractContextManager:
        """The context in which models and optimizers that are trained are made."""

    def trained(self, model: Any) -> Any:
        """The model to compile and train, with the layers of `model`. Call it outside `scope`."""

    def together(self) -> contextlib.AbstractContextManager:
        """The context of a whole training. Raises ConnectionError if another worker is lost."""

    def from_chief(self, data: bytes) -> bytes:
        """What the chief gives, on every worker. All have to call it."""

    def dataset(self, batches: Batches, first: int, last: int) -> Any:
        """The batches of steps `first` to `last` - 1, as `model.fit` takes them."""

    def evaluation(self, batches: EvaluationBatches) -> Any:
        """The batches, as `model.fit` and `model.evaluate` take them for validation."""


class OneWorker:
    """One process that trains on one device."""

    chief: ClassVar[bool] = True
    workers: ClassVar[int] = 1
    replicas: ClassVar[int] = 1

    def scope(self) -> contextlib.AbstractContextManager:
        """Nothing special."""
        return contextlib.nullcontext()

    def trained(self, model: Any) -> Any:
        """The model itself."""
        return model

    def together(self) -> contextlib.AbstractContextManager:
        """Nothing special."""
        return contextlib.nullcontext()

    def from_chief(self, data: bytes) -> bytes:
        """The data."""
        return data

    def dataset(self, batches: Batches, first: int, last: int) -> Any:
        """A `tf.data.Dataset`, or arrays one after the other on other backends than TensorFlow."""
        return batches.tf_dataset(first, last) if on_tensorflow() else batches.as_numpy(first, last)

    def evaluation(self, batches: EvaluationBatches) -> Any:
        """The same for evaluation."""
        return batches.tf_dataset() if on_tensorflow() else batches.as_numpy()


def on_tensorflow() -> bool:
    """Whether Keras runs on TensorFlow."""
    return keras.backend.backend() == "tensorflow"


def workers_of(settings: Settings) -> Workers:
    """Those that the settings ask for.

    Raises:
        ValueError: a cluster that is not described as it should be, or a backend that cannot.
    """
    if settings.distribute == "none":
        return OneWorker()
    from training import distribution  # needs the packages of the backend

    return distribution.start(settings)
