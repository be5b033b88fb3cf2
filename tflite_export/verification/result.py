"""What a comparison of a file with its model found."""

from __future__ import annotations

import dataclasses

import numpy as np

TOLERANCE = 1e-4
"""Largest difference of outputs, relative to the largest output of the sample or layer."""

TIE_TOLERANCE = 1e-5
"""Distance from a border, relative to the largest input, that float rounding can bridge: the
model sums in float32, about 1e-7 an operation, and the file in exact integers."""


class VerificationError(ValueError):
    """A file does not compute what its model computes."""


@dataclasses.dataclass(frozen=True)
class Verification:
    """What was compared.

    Args:
        max_error: largest relative difference of a float output: of each layer given its input,
            of the file given what its layers gave, and of the file on the clean samples.
        max_difference: largest absolute difference of an output, over all samples.
        ties: input codes that differ, because rounding put a value on the other side of a border.
        codes: input codes compared.
        samples: number of samples, random ones included; `clean_samples` of them have the codes
            of the model in every layer.
        layers: quantized layers compared.
        max_code_difference: largest difference of an output of a layer in codes of its tensor,
            for files of integers; 0 for others.
    """

    max_error: float
    max_difference: float
    ties: int
    codes: int
    samples: int
    clean_samples: int
    layers: int = 0
    max_code_difference: int = 0


def first(bad: np.ndarray) -> tuple[int, ...]:
    """Index of the first true element."""
    return tuple(int(i) for i in np.argwhere(bad)[0])


def relative_error(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Differences relative to the largest expected value; NaN where either is NaN."""
    return np.abs(expected - found) / max(np.abs(expected).max(initial=0), 1e-6)


def tie_limit(x: np.ndarray) -> float:
    """Distance from a border within which `x` may fall on either side."""
    return TIE_TOLERANCE * float(np.abs(x).max(initial=0))
