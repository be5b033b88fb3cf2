"""Records as JSON files, where None stands for what is no number."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from tflite_export.timing.bursts import Spread


def write(path: pathlib.Path, value: Any) -> None:
    """Write records, mappings and lists. Whoever reads or interrupts finds a whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_text(json.dumps(plain(value), indent=1) + "\n")
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """Records and mappings as JSON has them; six digits of a number."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def number(read: float | None) -> float:
    """A number as it was before `plain`."""
    return math.nan if read is None else read


def spread(read: Mapping[str, float | None]) -> Spread:
    """Quartiles as they were before `plain`."""
    return Spread(**{key: number(value) for key, value in read.items()})
