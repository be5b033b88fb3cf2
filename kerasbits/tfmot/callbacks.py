"""tf_keras callbacks for what happens between epochs; those of `kerasbits.callbacks`."""

from __future__ import annotations

import tf_keras

from kerasbits import between_epochs, budget


class AdjustBits(between_epochs.AdjustingBits, tf_keras.callbacks.Callback):
    """`kerasbits.callbacks.AdjustBits` for tf_keras."""


class Budget(budget.MeetingBudget, tf_keras.callbacks.Callback):
    """`kerasbits.callbacks.Budget` for tf_keras."""


class FreezeBits(between_epochs.FreezingBits, tf_keras.callbacks.Callback):
    """`kerasbits.callbacks.FreezeBits` for tf_keras."""


class LogBits(between_epochs.LoggingBits, tf_keras.callbacks.Callback):
    """`kerasbits.callbacks.LogBits` for tf_keras."""


class Progress(between_epochs.ShowingProgress, tf_keras.callbacks.Callback):
    """`kerasbits.callbacks.Progress` for tf_keras."""
