"""What was measured, as records and as JSON that grows row by row."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from benchmarks import as_json
from tflite_export.timing.bursts import Spread

NOTHING = Spread(math.nan, math.nan, math.nan, 0, 0)


@dataclasses.dataclass(frozen=True)
class Float:
    """The float network that all of kerasbits are compared with.

    Args:
        jit: "on" or "off", the faster one.
        seconds: CPU time of a step, by jit.
        start: CPU seconds to build and take the first step.
        memory: its peak in MiB.
        machine: of `machine.describe`.
        versions: of the packages.
    """

    jit: str
    seconds: Mapping[str, Spread]
    start: float
    memory: float
    machine: Mapping[str, str]
    versions: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Row:
    """A method or project beside its float network.

    Args:
        reason: why there are no numbers; empty if there are.
        jit: "on" or "off", the faster one.
        ratio: of steps, within a round.
        seconds: CPU time of a step.
        base: that of float in the same rounds.
        start: building and first step, times float.
        memory: peak of the whole process, times float.
        own: peak without what the libraries take before anything is built, times float.
        busy: whether hardly a round was undisturbed, so that the others count too.
        tried: the ratio with each jit that was tried, or why there is none.
        machine: of `machine.describe`.
        versions: of the packages.
    """

    reason: str = ""
    jit: str = ""
    ratio: Spread = NOTHING
    seconds: Spread = NOTHING
    base: Spread = NOTHING
    start: float = math.nan
    memory: float = math.nan
    own: float = math.nan
    busy: bool = False
    tried: Mapping[str, float | str] = dataclasses.field(default_factory=dict)
    machine: Mapping[str, str] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Network:
    """All rows of a network, by name."""

    base: Float | None = None
    rows: dict[str, Row] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Report:
    """All networks on a backend. Rows of several runs may stand beside each other."""

    backend: str
    batch: int
    networks: dict[str, Network] = dataclasses.field(default_factory=dict)
    machine: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def save(self, path: pathlib.Path) -> None:
        """Write it as JSON. Whoever reads or interrupts finds a whole file."""
        as_json.write(path, self)


def load(path: pathlib.Path) -> Report:
    """What `save` wrote.

    Raises:
        OSError: no such file.
        ValueError: the file is not of this form.
    """
    try:
        read = json.loads(path.read_text())
        networks = {
            name: Network(
                _float(found["base"]) if found["base"] else None,
                {row: _row(values) for row, values in found["rows"].items()},
            )
            for name, found in read["networks"].items()
        }
        return Report(read["backend"], read["batch"], networks, read["machine"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"file '{path}': expected results of training ({error!r})") from None


def resume(path: pathlib.Path, backend: str, batch: int) -> Report:
    """The results that are there, to add to; empty ones if there is no file.

    Raises:
        ValueError: those of another backend or batch.
    """
    if not path.is_file():
        return Report(backend, batch)
    report = load(path)
    if (report.backend, report.batch) != (backend, batch):
        raise ValueError(
            f"file '{path}': expected results on {backend} with batch {batch}, got those on "
            f"{report.backend} with batch {report.batch}; --json=FILE names another"
        )
    return report


def _float(read: Mapping[str, Any]) -> Float:
    seconds = {jit: as_json.spread(values) for jit, values in read["seconds"].items()}
    return Float(**{**read, "seconds": seconds})


def _row(read: Mapping[str, Any]) -> Row:
    spreads = {name: as_json.spread(read[name]) for name in ("ratio", "seconds", "base")}
    floats = {name: as_json.number(read[name]) for name in ("start", "memory", "own")}
    return Row(**{**read, **spreads, **floats})
