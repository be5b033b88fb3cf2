"""Pictures of the results, for the README."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.cases import CONVOLUTIONS, FLOAT, INT8, KBITS, LARQ, PACKED
from benchmarks.rates import Rate
from benchmarks.results import Group, Report, Row

SHOWN = ("1 x 1", "1 x 2", "2 x 2", *(f"{bits} x 8" for bits in range(1, 9)))
"""Bits of weights x inputs on the axis."""

COLOURS = {INT8: "#c44536", FLOAT: "#777777", LARQ: "#e09f3e", PACKED: "#1f6f8b", KBITS: "#3c91ad"}
FILES = (FLOAT, INT8, LARQ, PACKED, KBITS)
"""Bars of a network, from above."""


def sides(report: Report) -> str:
    """What both sides were allowed to use."""
    if report.part.endswith("avx2"):
        return "both held to AVX2"
    return f"both at their best (kerasbits: {report.isa.upper().replace('AVX5', 'AVX-5')})"


def speed_against_bits(
    reports: Sequence[Report], roofs: Sequence[Rate], path: pathlib.Path
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
        _bars(axis, report, {(r.isa, r.name): r.high for r in roofs})
    axes[-1, 0].set_xlabel("bits of weights x bits of inputs")
    figure.savefig(_place(path), dpi=120)
    plt.close(figure)


def _bars(axis: Axes, report: Report, roofs: Mapping[tuple[str, str], float]) -> None:
    group = next(g for g in report.groups if g.title.startswith("conv") and "256" in g.title)
    rows = {row.name: row for row in group.rows if row.seconds.count}
    names = [name for name in SHOWN if name in rows]
    speeds = [_gmacs(rows[name]) for name in names]
    axis.bar(range(len(names)), speeds, color=COLOURS[PACKED], width=0.7, label="kerasbits")
    for place, speed in enumerate(speeds):
        axis.annotate(f"{speed:.0f}", (place, speed), ha="center", va="bottom", fontsize=8)
    others = {name: _gmacs(rows[name]) for name in group.references if name in rows}
    for name, speed in others.items():
        axis.axhline(speed, color=COLOURS[name], linewidth=1.4, zorder=0)
    kinds = {kind.name: kind for kind in CONVOLUTIONS}
    marks = {}
    for i, name in enumerate(names):
        roof = roofs.get((report.isa, kinds[name].roof.get(report.isa)))
        if roof is not None:
            marks[i] = roof / kinds[name].passes * _gigahertz(rows[name])
    axis.hlines(
        list(marks.values()), [i - 0.4 for i in marks], [i + 0.4 for i in marks],
        color="black", linestyles="dotted", label="the same kernel idea in registers",
    )  # fmt: skip
    top = 1.08 * max([*speeds, *others.values(), *marks.values()])
    for name, place in apart(others, 0.055 * top).items():
        axis.annotate(
            f"{name} {others[name]:.0f}", (len(names) - 0.45, place),
            color=COLOURS[name], fontsize=8, va="center", annotation_clip=False,
        )  # fmt: skip
    axis.set(xlim=(-0.6, len(names) - 0.5), ylim=(0, top), ylabel="GMAC/s, one core")
    axis.set_xticks(range(len(names)), names)
    axis.set_title(f"{group.title}: {sides(report)}", fontsize=10, loc="left")
    axis.legend(fontsize=8, frameon=False, loc="upper right")
    axis.spines[["top", "right"]].set_visible(False)


def apart(places: Mapping[str, float], distance: float) -> dict[str, float]:
    """The places, from below, moved up where they would be closer than `distance`."""
    found: dict[str, float] = {}
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        found[name] = max([place, *(other + distance for other in found.values())])
    return found


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
        line[0].set_yticks(range(len(FILES)), FILES[::-1], fontsize=8)
        line[0].set_ylabel(sides(report).partition(" (")[0], fontsize=9)
    figure.supxlabel("microseconds a run, one core (shorter is better)", fontsize=9)
    figure.savefig(_place(path), dpi=120)
    plt.close(figure)


def _network(axis: Axes, group: Group) -> None:
    rows = {row.name: row for row in group.rows if row.seconds.count}
    times = {name: 1e6 * rows[name].seconds.median for name in FILES if name in rows}
    places = {name: len(FILES) - 1 - FILES.index(name) for name in times}
    colours = [COLOURS[name] for name in times]
    axis.barh(list(places.values()), list(times.values()), color=colours, height=0.7)
    for name, took in times.items():
        axis.annotate(f" {took:,.0f}", (took, places[name]), va="center", fontsize=8)
    axis.set(xlim=(0, 1.25 * max(times.values(), default=1)), ylim=(-0.6, len(FILES) - 0.4))
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
