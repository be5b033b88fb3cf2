"""A picture of the cost of training, for the README."""

from __future__ import annotations

import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.training.results import Report, Row
from benchmarks.training.subjects import METHODS, PROJECTS, STEP_GOALS
from benchmarks.training.tables import TITLES

COLOURS = ("#1f6f8b", "#e09f3e")
HIGHEST = 3.0
"""Bars beyond this are cut off; their number is in them."""


def draw(report: Report, path: pathlib.Path) -> None:
    """Bars of the time of a step over float, with quartiles and goals."""
    there = {name for found in report.networks.values() for name in found.rows}
    names = [name for name in (*METHODS, *PROJECTS) if name in there]
    figure, axis = plt.subplots(figsize=(9, 4), layout="constrained")
    count = max(1, len(report.networks))
    width = 0.8 / count
    for number, (network, found) in enumerate(report.networks.items()):
        places = [index + width * (number - (count - 1) / 2) for index in range(len(names))]
        rows = [found.rows.get(name, Row("not measured")) for name in names]
        colour = COLOURS[number % len(COLOURS)]
        _bars(axis, places, rows, width, colour, TITLES.get(network, network))
    for index, name in enumerate(names):
        if name in STEP_GOALS:
            label = "goal" if not index else None
            goal = STEP_GOALS[name]
            axis.plot([index - 0.45, index + 0.45], [goal, goal], "k--", lw=1, label=label)
    axis.axhline(1, color="#777777", linewidth=0.8)
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=9)
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.set_ylabel("step, times float (shorter is better)", fontsize=9)
    backend = {"tensorflow": "TensorFlow", "jax": "JAX"}[report.backend]
    title = f"CPU time of a training step, one core, {backend}, batch {report.batch}"
    axis.set_title(title, fontsize=10, loc="left")
    # Above the bars, beside the title: within the axes it hides some.
    axis.legend(fontsize=8, frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _bars(axis: Axes, places, rows, width, colour, title) -> None:
    shown = [(place, row.ratio) for place, row in zip(places, rows, strict=True) if not row.reason]
    heights = [min(ratio.median, HIGHEST) for _, ratio in shown]
    label = title if shown else None
    axis.bar([place for place, _ in shown], heights, 0.9 * width, color=colour, label=label)
    for place, ratio in shown:
        if ratio.median <= HIGHEST:
            high = min(ratio.high, HIGHEST)
            axis.plot([place, place], [ratio.low, high], color="black", linewidth=1)
        text = f"{ratio.median:.2f}"
        axis.annotate(text, (place, 0.04), ha="center", va="bottom", fontsize=7, color="white")
    for place, row in zip(places, rows, strict=True):
        if row.reason:
            axis.annotate(
                row.reason[:40], (place, 0.04), rotation=90, ha="center", va="bottom", fontsize=6,
                color=colour,
            )  # fmt: skip
