"""What looks on while an epoch is trained, for the callbacks of either Keras.

Keras and tf_keras want callbacks of their own class. The classes here have none; `callback` gives
them one.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

Logs = dict[str, float]


def callback(keras: ModuleType, kind: type, *arguments) -> Any:
    """An object of the class `kind` that is a callback of `keras` too."""
    return type(kind.__name__, (kind, keras.callbacks.Callback), {})(*arguments)


class Broken:
    """Goes on with an epoch that was interrupted, and ends training at its end.

    Means over the epoch are those of its parts, weighted by their steps. Put it first.

    Args:
        phase: name of the phase, for errors.
        done: steps of the epoch that were done before.
        means: of the logs over these steps.
        save: called where `due` with the model, the steps done in this epoch and the means.
        due: whether to save after so many steps of the epoch.
    """

    def __init__(
        self,
        phase: str,
        done: int,
        means: Mapping[str, float],
        save: Callable[[Any, int, Logs], None],
        due: Callable[[int], bool],
    ):
        super().__init__()
        self._phase, self._before, self._means = phase, done, dict(means)
        self._save, self._due, self._done = save, due, done

    def on_train_batch_end(self, batch, logs=None):
        """Save if it is time."""
        self._done = self._before + batch + 1
        if self._due(self._done):
            # JAX brings the variables up to date when a callback asks for the model.
            self._save(self.model, self._done, self._merged(logs or {}))

    def on_epoch_end(self, epoch, logs=None):
        """Let the logs tell of the whole epoch; stop."""
        logs.update(self._merged({n: v for n, v in logs.items() if not n.startswith("val_")}))
        self.model.stop_training = True

    def _merged(self, logs: Mapping[str, Any]) -> Logs:
        new = self._done - self._before
        means = {name: float(value) for name, value in logs.items()}
        if bad := [name for name, value in means.items() if not math.isfinite(value)]:
            raise DivergedError(
                f"{self._phase}: expected a finite {bad[0]}, got {means[bad[0]]}; "
                "try a smaller learning rate"
            )
        if not self._before:
            return means
        return {n: (self._means[n] * self._before + v * new) / self._done for n, v in means.items()}


class DivergedError(ValueError):
    """A training whose loss is no number any more."""


class Scalars:
    """Writes the logs of each epoch for TensorBoard. Put it behind what adds to the logs.

    Args:
        folder: of the event files.
        step: called for the number of the step at the end of the epoch.
    """

    def __init__(self, folder: pathlib.Path, step: Callable[[], int]):
        super().__init__()
        self._folder, self._step = folder, step

    def on_epoch_end(self, epoch, logs=None):
        """Write them."""
        import tensorflow as tf  # only those who want TensorBoard need it

        with tf.summary.create_file_writer(str(self._folder)).as_default():
            for name, value in logs.items():
                tf.summary.scalar(name, value, step=self._step())
            tf.summary.flush()
