"""What a part of the benchmarks found, as records and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks import as_json, clock
from tflite_export.timing.bursts import Spread, Times, speed_ratio, spread


@dataclasses.dataclass(frozen=True)
class Row:
    """One subject.

    Args:
        name: of it.
        seconds: a call.
        ratios: how many times as fast it is as each reference.
        goals: the least ratios that we want.
        macs: multiplications of a call, 0 if they are not counted.
        macs_per_cycle: of the core's clock as it was meanwhile; None without a clock.
        roof: MAC per cycle in registers of the kernel idea behind it, by name; None if unknown.
    """

    name: str
    seconds: Spread
    ratios: Mapping[str, Spread]
    goals: Mapping[str, float]
    macs: int = 0
    macs_per_cycle: float | None = None
    roof: str | None = None

    def met(self, reference: str) -> bool | None:
        """Whether a goal is met; None if there is none, or it was not measured."""
        ratio, goal = self.ratios.get(reference), self.goals.get(reference)
        if ratio is None or goal is None or not math.isfinite(ratio.median):
            return None
        return ratio.median >= goal


@dataclasses.dataclass(frozen=True)
class Group:
    """Subjects that took turns.

    Args:
        title: what they compute.
        references: names of rows that others are compared with.
        rows: in the order of the table, references first.
    """

    title: str
    references: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class Report:
    """All groups of a part.

    Args:
        part: its name.
        isa: instruction set of our kernels.
        note: what a reader must know, such as what was missing.
        machine: of `machine.describe`.
        groups: of it.
    """

    part: str
    isa: str
    note: str
    machine: Mapping[str, str]
    groups: tuple[Group, ...]

    def save(self, folder: pathlib.Path) -> pathlib.Path:
        """Write it as JSON; the path."""
        path = folder / f"{self.part}.json"
        as_json.write(path, self)
        return path


def load(path: pathlib.Path) -> Report:
    """What `save` wrote.

    Raises:
        OSError: no such file.
        ValueError: the file is not of this form.
    """
    try:
        read = json.loads(path.read_text())
        groups = tuple(
            Group(g["title"], tuple(g["references"]), tuple(map(_row, g["rows"])))
            for g in read["groups"]
        )
        return Report(read["part"], read["isa"], read["note"], read["machine"], groups)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"file '{path}': expected results of a benchmark ({error!r})") from None


def group(
    title: str,
    times: Times,
    references: Mapping[str, int],
    subjects: Mapping[str, Mapping[str, float]],
    macs: int = 0,
    roofs: Mapping[str, str | None] | None = None,
) -> Group:
    """Rows from the times of subjects that took turns.

    Args:
        title: of the group.
        times: seconds a call of each, and of the clock if there is one.
        references: their names, and the multiplications of a call.
        subjects: names of ours, each with its goals.
        macs: multiplications of a call of ours.
        roofs: kernel idea of each of ours.
    """
    shown = [name for name in references if name in times]
    rows = [_measured(name, times, shown, {}, references[name], None) for name in shown]
    for name, goals in subjects.items():
        if name in times:
            rows.append(_measured(name, times, shown, goals, macs, (roofs or {}).get(name)))
    return Group(title, tuple(shown), tuple(rows))


def cycle_seconds(ticks: np.ndarray) -> float:
    """Seconds of a cycle: the fastest tenth of the clock's bursts; not a number if none counts.

    A burst of the clock can be disturbed, never be too fast, so MAC per cycle are not overstated.
    """
    kept = ticks[np.isfinite(ticks)]
    return float(np.percentile(kept, 10)) / clock.CYCLES if kept.size else math.nan


def _measured(name, times, references, goals, macs, roof) -> Row:
    ratios = {other: speed_ratio(times, name, other) for other in references if other != name}
    seconds, per_cycle = spread(times[name]), None
    if macs and seconds.count and clock.NAME in times:
        per_cycle = macs / seconds.median * cycle_seconds(times[clock.NAME])
    return Row(name, seconds, ratios, dict(goals), macs, per_cycle, roof)


def _row(read: Mapping[str, Any]) -> Row:
    ratios = {name: as_json.spread(values) for name, values in read["ratios"].items()}
    return Row(**{**read, "seconds": as_json.spread(read["seconds"]), "ratios": ratios})
