"""Results as tables of Markdown, with the goals beside the ratios and what was not reached as plain
as what was."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from benchmarks.cases import FLOAT, INT8, LARQ
from benchmarks.rates import Rate
from benchmarks.results import Group, Report, Row
from tflite_export.timing.bursts import Spread

_FAMILIES = ("conv", "dense", "depthwise")


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def full(report: Report) -> str:
    """Every number of a report: a table for each group under its title, and what was missing."""
    parts = [f"#### {group.title}\n\n{group_table(group)}" for group in report.groups]
    return "\n\n".join([*parts, *([report.note] if report.note else [])])


def group_table(group: Group) -> str:
    """Times, speeds and ratios of a group. Columns that would be empty are left out."""
    head = [
        "",
        "us",
        "quartiles",
        "GMAC/s",
        "MAC/cycle",
        *(f"x {name}" for name in group.references),
    ]
    rows = [_cells(row, group.references) for row in group.rows]
    goals = {row.name: _verdicts(row) for row in group.rows}
    if any(goals.values()):
        head.append("goals")
        rows = [[*cells, goals[cells[0]]] for cells in rows]
    shown = [i for i in range(len(head)) if i == 0 or any(cells[i] for cells in rows)]
    return grid([head[i] for i in shown], [[cells[i] for i in shown] for cells in rows])


def summary(report: Report) -> str:
    """Speed over XNNPACK int8: a row for each pair of widths, a column for each shape."""
    tables = []
    for family in _FAMILIES:
        groups = [g for g in report.groups if g.title.startswith(family)]
        if groups:
            tables.append(_matrix(groups))
    return "\n\n".join([*tables, *([report.note] if report.note else [])])


def networks(report: Report) -> str:
    """Times of whole networks and their ratios to the stock files."""
    head = ["network", "", "us", f"x {FLOAT}", f"x {INT8}", "goal"]
    rows = []
    for group in report.groups:
        for number, row in enumerate(group.rows):
            ratios = [number_of(row.ratios.get(name)) for name in (FLOAT, INT8)]
            title = "" if number else group.title
            rows.append([title, row.name, us(row.seconds.median), *ratios, _verdicts(row)])
    table = grid(head, rows)
    return f"{table}\n\n{report.note}" if report.note else table


def threads(report: Report) -> str:
    """How much faster two threads are than one."""
    if not report.groups:
        return report.note
    rows = []
    for group in report.groups:
        by_name = {row.name: row for row in group.rows}
        for name, row in by_name.items():
            one = name.replace("2 threads", "1 thread")
            if one != name and one in by_name:
                who = name.rpartition(",")[0]
                ratio = row.ratios.get(one)
                both = (us(by_name[one].seconds.median), us(row.seconds.median))
                rows.append([group.title, who, *both, number_of(ratio), _verdicts(row)])
    table = grid(["", "", "1 thread, us", "2 threads, us", "ratio", "goal"], rows)
    return f"{table}\n\n{report.note}" if report.note else table


def kernels(found: Sequence[Rate]) -> str:
    """MAC, or values, per cycle of each kernel."""
    rows = [
        [f"{r.isa}: {r.name}", f"{r.median:.3g}", f"{r.low:.3g} to {r.high:.3g}"] for r in found
    ]
    return grid(["kernel", "MAC or values/cycle", "quartiles"], rows)


def roofs(found: Sequence[Rate]) -> str:
    """MAC per cycle of each idea."""
    rows = [
        [f"{r.isa}: {r.name}", f"{r.median:.1f}", f"{r.low:.1f} to {r.high:.1f}"] for r in found
    ]
    return grid(["idea of a kernel", "MAC/cycle", "quartiles"], rows)


def machine(found: Mapping[str, str]) -> str:
    """One line: what it was measured on."""
    words = [f"{found['processor']}, {found['cores']} cores", found["system"]]
    named = ("python", "ai-edge-litert", "tensorflow", "keras", "numpy")
    words += [f"{name} {found[name]}" for name in named if name in found]
    return ", ".join([*words, found["compiler"], f"commit {found['commit']}"])


def us(seconds: float) -> str:
    """Microseconds, three digits."""
    value = 1e6 * seconds
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def number_of(ratio: Spread | None) -> str:
    """A ratio; a dash where it was not measured."""
    return "" if ratio is None else f"{ratio.median:.2f}" if ratio.count else "-"


def _matrix(groups: Sequence[Group]) -> str:
    first = groups[0]
    head = [first.title.partition(",")[0], "goal", *(_where(group.title) for group in groups)]
    rows = []
    for row in first.rows:
        found = [next((r for r in g.rows if r.name == row.name), None) for g in groups]
        goal = row.goals.get(INT8)
        cells = ["" if r is None else _with_mark(r) for r in found]
        rows.append([row.name, "" if goal is None else f">= {goal:g}", *cells])
        if LARQ in row.goals:
            cells = ["" if r is None else _with_mark(r, LARQ) for r in found]
            rows.append([f"{row.name}, over {LARQ}", f">= {row.goals[LARQ]:g}", *cells])
    return grid(head, rows)


def _where(title: str) -> str:
    """`64 channels, 56x56` as `64@56x56`."""
    _, _, place = title.partition(", ")
    return place.replace(" channels, ", "@")


def _with_mark(row: Row, reference: str = INT8) -> str:
    """The ratio, bold if its goal is met, and with a word if not."""
    if row.name == reference:
        return "1"
    ratio, met = number_of(row.ratios.get(reference)), row.met(reference)
    return ratio if met is None else f"**{ratio}**" if met else f"{ratio} (not met)"


def _cells(row: Row, references: Sequence[str]) -> list[str]:
    took = row.seconds
    quartiles = f"{us(took.low)} to {us(took.high)}"
    speed = f"{1e-9 * row.macs / took.median:.1f}" if row.macs and took.count else ""
    per_cycle = "" if row.macs_per_cycle is None else f"{row.macs_per_cycle:.1f}"
    ratios = []
    for name in references:
        ratio = row.ratios.get(name)
        spread = f" ({ratio.low:.2f} to {ratio.high:.2f})" if ratio and ratio.count else ""
        ratios.append(number_of(ratio) + spread)
    return [row.name, us(took.median), quartiles, speed, per_cycle, *ratios]


def _verdicts(row: Row) -> str:
    """`>= 6: met; >= 4 x Larq: not met`."""
    found = []
    for name, goal in row.goals.items():
        met = row.met(name)
        said = "not measured" if met is None else "met" if met else "NOT met"
        found.append(f">= {goal:g} x {name}: {said}")
    return "; ".join(found)
