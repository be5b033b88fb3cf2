"""Keras callbacks for what happens between epochs."""

from __future__ import annotations

import keras

from kerasbits import between_epochs, budget


class AdjustBits(between_epochs.AdjustingBits, keras.callbacks.Callback):
    """Call `adjust` after every `every` epochs and at the end of training (BSQ).

    Put it before callbacks that evaluate or save, so that they see the adjusted model.
    """


class Budget(budget.MeetingBudget, keras.callbacks.Callback):
    """Steer the strengths so that the frozen model takes no more than `size` bytes of weights or
    `bops` bit operations a sample.

    Put it before the callbacks that record logs. Arguments, law and errors: `MeetingBudget`.
    """


class FreezeBits(between_epochs.FreezingBits, keras.callbacks.Callback):
    """Call `freeze` when `epoch` (counted from 0) begins, or later if training resumes later.

    Being frozen is part of a model's weights: `EarlyStopping(restore_best_weights=True)` can bring
    back weights of an epoch before it. Call `freeze` again after such a training.
    """


class LogBits(between_epochs.LoggingBits, keras.callbacks.Callback):
    """Add `average_bits`, `weight_kib`, `bops` and `bits/<layer>` to the logs of each epoch.

    Put it behind `AdjustBits` and before the callbacks that record logs (TensorBoard, CSVLogger).
    """


class Progress(between_epochs.ShowingProgress, keras.callbacks.Callback):
    """One line an epoch, with bits and size; on a terminal also a bar of the steps. Put it last.

    Use it with `verbose=0`:

        epoch 2/4  11 s  loss 0.412  accuracy 0.886  val_accuracy 0.879  3.42 bits  25.7 KiB
    """
