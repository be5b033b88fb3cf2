"""Pictures of the results, for the README."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.cases import CONVOLUTIONS, FLOAT, INT8, LARQ
from benchmarks.results import Group, Report, Row
from benchmarks.roofline import Roof

SHOWN = ("1 x 1", "1 x 2", "2 x 2", *(f"{bits} x 8" for bits in range(1, 9)))
"""Bits of weights x inputs on the axis."""

COLOURS = {"ours": "#1f6f8b", INT8: "#c44536", FLOAT: "#777777", LARQ: "#e09f3e"}
NAMES = {"avx2": "AVX2, both sides", "avx512": "AVX-512, both sides"}


def speed_against_bits(
    reports: Sequence[Report], roofs: Sequence[Roof], path: pathlib.Path
) -> None:
    """Bars of our speed by width on one convolution, with lines of the others and the roofs.

    Args:
        reports: of "layers", one for each instruction set.
        roofs: of the kernel ideas.
        path: of the PNG file.
    """
    figure, axes = plt.subplots(
        len(reports), 1, figsize=(8.5, 3.4 * len(reports)), squeeze=False, layout="constrained"
    )
    for axis, report in zip(axes[:, 0], reports, strict=True):
        group = next(g for g in report.groups if g.title.startswith("conv") and "256" in g.title)
        _bars(axis, group, report.isa, {(r.isa, r.name): r.median for r in roofs})
    axes[-1, 0].set_xlabel("bits of weights x bits of inputs")
    figure.savefig(_place(path), dpi=120)
    plt.close(figure)


def _bars(axis: Axes, group: Group, isa: str, roofs: Mapping[tuple[str, str], float]) -> None:
    rows = {row.name: row for row in group.rows}
    names = [name for name in SHOWN if name in rows]
    speeds = [_gmacs(rows[name]) for name in names]
    axis.bar(range(len(names)), speeds, color=COLOURS["ours"], width=0.7, label="kerasbits")
    for place, speed in enumerate(speeds):
        axis.annotate(f"{speed:.0f}", (place, speed), ha="center", va="bottom", fontsize=8)
    for name in group.references:
        axis.axhline(_gmacs(rows[name]), color=COLOURS[name], linewidth=1.4)
        axis.annotate(
            f"{name} {_gmacs(rows[name]):.0f}",
            (len(names) - 0.45, _gmacs(rows[name])),
            color=COLOURS[name], fontsize=8, va="center", annotation_clip=False,
        )  # fmt: skip
    ideas = {kind.name: kind.roof.get(isa) for kind in CONVOLUTIONS}
    marks = {i: roofs.get((isa, ideas[name])) for i, name in enumerate(names)}
    marks = {i: roof * _gigahertz(rows[names[i]]) for i, roof in marks.items() if roof}
    axis.hlines(
        list(marks.values()), [i - 0.4 for i in marks], [i + 0.4 for i in marks],
        color="black", linestyles="dotted", label="the same kernel idea in registers",
    )  # fmt: skip
    axis.set_xticks(range(len(names)), names)
    axis.set_xlim(-0.6, len(names) - 0.5)
    axis.set_ylabel("GMAC/s, one core")
    axis.set_title(f"{group.title}: {NAMES.get(isa, isa)}", fontsize=10, loc="left")
    axis.legend(fontsize=8, frameon=False, loc="upper right")
    axis.spines[["top", "right"]].set_visible(False)


def network_times(reports: Sequence[Report], path: pathlib.Path) -> None:
    """Bars of the time of a run, of each file of each network.

    Args:
        reports: of "networks", one for each instruction set.
        path: of the PNG file.
    """
    count = max(len(report.groups) for report in reports)
    figure, axes = plt.subplots(
        len(reports), count, figsize=(3.1 * count, 2.4 * len(reports)), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for line, report in zip(axes, reports, strict=True):
        for axis, group in zip(line, report.groups, strict=True):
            _network(axis, group)
        line[0].set_ylabel(NAMES.get(report.isa, report.isa), fontsize=9)
    figure.supxlabel("microseconds a run, one core (shorter is better)", fontsize=9)
    figure.savefig(_place(path), dpi=120)
    plt.close(figure)


def _network(axis: Axes, group: Group) -> None:
    rows = group.rows[::-1]
    times = [1e6 * row.seconds.median for row in rows]
    colours = [COLOURS.get(row.name, COLOURS["ours"]) for row in rows]
    axis.barh(range(len(rows)), times, color=colours, height=0.7)
    for place, row in enumerate(rows):
        text = f" {row.name.removeprefix('kerasbits, ')}: {times[place]:,.0f}"
        axis.annotate(text, (0, place), va="center", fontsize=8, color="white", weight="bold")
    axis.set_yticks([])
    axis.tick_params(labelsize=7)
    axis.set_title(", ".join(group.title.split(", ")[:2]), fontsize=8, loc="left")
    axis.spines[["top", "right"]].set_visible(False)


def _gmacs(row: Row) -> float:
    return 1e-9 * row.macs / row.seconds.median


def _gigahertz(row: Row) -> float:
    """The clock during its bursts."""
    return _gmacs(row) / row.macs_per_cycle if row.macs_per_cycle else 0.0


def _place(path: pathlib.Path) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
