"""Keras callbacks for what happens between epochs."""

from __future__ import annotations

import keras

from kerasbits import lifecycle, sites
from kerasbits.report import report


class AdjustBits(keras.callbacks.Callback):
    """Call `adjust` after every `every` epochs and at the end of training (BSQ).

    Put it before callbacks that evaluate or save, so that they see the adjusted model.
    """

    def __init__(self, every: int = 1):
        super().__init__()
        if type(every) is not int or every < 1:
            raise ValueError(f"AdjustBits: expected every >= 1 epochs, got {every!r}")
        self.every = every

    def on_train_begin(self, logs=None):
        """Make the losses know the whole network."""
        sites.set_shares(self.model)

    def on_epoch_end(self, epoch, logs=None):
        """Adjust if it is time."""
        if (epoch + 1) % self.every == 0:
            lifecycle.adjust(self.model)

    def on_train_end(self, logs=None):
        """Adjust once more."""
        lifecycle.adjust(self.model)


class FreezeBits(keras.callbacks.Callback):
    """Call `freeze` when `epoch` (counted from 0) begins, or later if training resumes later."""

    def __init__(self, epoch: int):
        super().__init__()
        if type(epoch) is not int or epoch < 0:
            raise ValueError(f"FreezeBits: expected epoch >= 0, got {epoch!r}")
        self.epoch = epoch

    def on_train_begin(self, logs=None):
        """Make the losses know the whole network."""
        sites.set_shares(self.model)

    def on_epoch_begin(self, epoch, logs=None):
        """Freeze from the chosen epoch on; freezing again changes nothing."""
        if epoch >= self.epoch:
            lifecycle.freeze(self.model)


class LogBits(keras.callbacks.Callback):
    """Add `average_bits`, `weight_kib`, `bops` and `bits/<layer>` to the logs of each epoch.

    Put it first: History, TensorBoard and CSVLogger then record the values.
    """

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
