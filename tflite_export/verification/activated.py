"""Differences behind the activation of a layer, which may amplify the rounding of its sums."""

from __future__ import annotations

import numpy as np
from keras import ops

from tflite_export.collect import Collected
from tflite_export.verification.result import TOLERANCE, relative_error

_ROUNDING = 2.0**-22
"""How far a float32 sum may be from the exact one, relative to the largest sum."""


def activated_error(
    collected: Collected, expected: np.ndarray, sums: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Relative differences of outputs, and the outputs.

    The model adds up in float32. Behind a sigmoid an error of 1e-7 of sums as large as 10,000 is
    one of 1e-4; so where the outputs differ by more than `TOLERANCE`, sums that far away count as
    equal.

    Args:
        collected: the layer, whose activation the file may run as an operator of its own.
        expected: outputs of the model.
        sums: what the file has in front of the activation, clamped as the file clamps it.
    """
    found = _activated(collected, sums)
    error = relative_error(expected, found)
    if (error <= TOLERANCE).all():
        return error, found
    noise = np.float32(_ROUNDING) * np.abs(sums).max() * np.sign(expected - found)
    for moved in (sums + noise, sums - noise):
        nearby = _activated(collected, moved)
        low, high = np.minimum(found, nearby), np.maximum(found, nearby)
        # NaN stays NaN: it is equal to nothing.
        error = np.minimum(error, relative_error(expected, np.clip(expected, low, high)))
    return error, found


def _activated(collected: Collected, y: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(collected.layer.activation(ops.convert_to_tensor(y)))
