"""What callbacks do between epochs, for `keras.callbacks` and for those of tf_keras alike.

Each class is a mixin for a `Callback`, which has `model` and `params`.
"""

from __future__ import annotations

import sys
import time

import rich.console
import rich.progress

from kerasbits import lifecycle, sites
from kerasbits.report import report


class OfOneKeras:
    """Refuses models of the other Keras, whose messages would not say what is wrong."""

    def set_model(self, model):
        """Take the model to work on.

        Raises:
            ValueError: a tf_keras model for a Keras 3 callback, or the reverse.
        """
        if _is_of_tf_keras(model) != _is_of_tf_keras(self):
            found = ("tf_keras", "Keras 3") if _is_of_tf_keras(model) else ("Keras 3", "tf_keras")
            name, where = type(self).__name__, ("tfmot." if found[0] == "tf_keras" else "")
            raise ValueError(
                f"{name}: expected a model of {found[1]}, got one of {found[0]}; "
                f"use kerasbits.{where}callbacks.{name}"
            )
        super().set_model(model)


def _is_of_tf_keras(thing) -> bool:
    return any(kind.__module__.partition(".")[0] == "tf_keras" for kind in type(thing).__mro__)


class AdjustingBits(OfOneKeras):
    """What `kerasbits.callbacks.AdjustBits` does."""

    def __init__(self, every: int = 1):
        super().__init__()
        if type(every) is not int or every < 1:
            raise ValueError(f"AdjustBits: expected every >= 1 epochs, got {every!r}")
        self.every = every

    def on_train_begin(self, logs=None):
        """Make the losses know the whole network.

        Raises:
            ValueError: a model without quantizers.
        """
        sites.check_quantized(self.model, "AdjustBits")
        sites.set_shares(self.model)

    def on_epoch_end(self, epoch, logs=None):
        """Adjust if it is time."""
        if (epoch + 1) % self.every == 0:
            lifecycle.adjust(self.model)

    def on_train_end(self, logs=None):
        """Adjust once more."""
        lifecycle.adjust(self.model)


class FreezingBits(OfOneKeras):
    """What `kerasbits.callbacks.FreezeBits` does."""

    def __init__(self, epoch: int):
        super().__init__()
        if type(epoch) is not int or epoch < 0:
            raise ValueError(f"FreezeBits: expected epoch >= 0, got {epoch!r}")
        self.epoch = epoch

    def on_train_begin(self, logs=None):
        """Make the losses know the whole network.

        Raises:
            ValueError: a model without quantizers.
        """
        sites.check_quantized(self.model, "FreezeBits")
        sites.set_shares(self.model)

    def on_epoch_begin(self, epoch, logs=None):
        """Freeze from the chosen epoch on; freezing again changes nothing."""
        if epoch >= self.epoch:
            lifecycle.freeze(self.model)


class LoggingBits(OfOneKeras):
    """What `kerasbits.callbacks.LogBits` does."""

    def on_train_begin(self, logs=None):
        """Make the losses know the whole network."""
        sites.set_shares(self.model)

    def on_epoch_end(self, epoch, logs=None):
        """Write the numbers into `logs`."""
        if logs is None:
            return
        found = report(self.model)
        logs["average_bits"] = found.average_bits
        logs["weight_kib"] = found.weight_bytes / 1024
        logs["bops"] = found.bops
        for row in found.rows:
            if row.method != "float":
                logs[f"bits/{row.name}"] = row.bits


class ShowingProgress(OfOneKeras):
    """What `kerasbits.callbacks.Progress` does."""

    def on_train_begin(self, logs=None):
        """Start the bar."""
        self._console = rich.console.Console(width=None if sys.stdout.isatty() else 160)
        self._bar = rich.progress.Progress(
            console=self._console, transient=True, disable=not self._console.is_terminal
        )
        self._bar.start()
        self._task = self._bar.add_task("", total=self.params.get("steps"))

    def on_epoch_begin(self, epoch, logs=None):
        """Set the bar back."""
        self._start = time.monotonic()
        self._label = f"epoch {epoch + 1}/{self.params['epochs']}"
        self._bar.reset(self._task, description=self._label)

    def on_train_batch_end(self, batch, logs=None):
        """Move the bar."""
        self._bar.update(self._task, completed=batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        """Print the line."""
        found = report(self.model)
        shown = ("loss", "accuracy", "val_loss", "val_accuracy")
        parts = [self._label, f"{time.monotonic() - self._start:.0f} s"]
        parts += [f"{name} {float(logs[name]):.3f}" for name in shown if name in (logs or {})]
        if any(row.method != "float" for row in found.rows):
            parts += [f"{found.average_bits:.2f} bits", f"{found.weight_bytes / 1024:.1f} KiB"]
        self._console.print("  ".join(parts), highlight=False)

    def on_train_end(self, logs=None):
        """Remove the bar."""
        self._bar.stop()
