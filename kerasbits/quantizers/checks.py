"""Checks of configuration fields and of kernels, with one wording for all methods."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasbits.quantizers.base import Site


def check_choice(method: str, field: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise ValueError unless `value` is one of `choices` (and of their type: 1 is not True)."""
    if not any(value is c or (type(value) is type(c) and value == c) for c in choices):
        expected = " or ".join(repr(c) for c in choices)
        raise ValueError(f"{method}: expected {field} to be {expected}, got {value!r}")


def check_number(
    method: str, field: str, value: Any, low: float = -math.inf, high: float = math.inf
) -> None:
    """Raise ValueError unless `value` is a finite real number in `[low, high]`."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(
            f"{method}: expected {field} to be a number in [{low:g}, {high:g}], got {value!r}"
        )


def check_whole(method: str, field: str, value: Any, low: int, high: int) -> None:
    """Raise ValueError unless `value` is an integer in `[low, high]`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        raise ValueError(
            f"{method}: expected {field} to be a whole number in [{low}, {high}], got {value!r}"
        )


def check_rate(method: str, value: Any) -> None:
    """Raise ValueError unless `value` is a power of two, which hosts can divide by exactly."""
    check_number(method, "rate", value)
    if value <= 0 or math.frexp(value)[0] != 0.5:
        raise ValueError(f"{method}: expected rate to be a power of two, got {value!r}")


def finite_kernel(w: Any, site: Site) -> np.ndarray:
    """The kernel as float32, or a ValueError that names the layer if it holds NaN or infinity."""
    w = np.asarray(w, np.float32)
    bad = int(np.size(w) - np.count_nonzero(np.isfinite(w)))
    if bad:
        raise site.error("a finite kernel", f"{bad} values that are NaN or infinite")
    return w
