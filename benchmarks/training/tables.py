"""Results of training as tables of Markdown: what was not reached is as plain as what was."""

from __future__ import annotations

import math
from collections.abc import Mapping

from benchmarks.tables import grid
from benchmarks.training.results import Network, Report, Row
from benchmarks.training.subjects import (
    MEMORY_GOALS,
    METHODS,
    PROJECTS,
    START_GOAL,
    STEP_GOALS,
)
from tflite_export.timing.bursts import Spread

TITLES = {"resnet20": "ResNet-20", "mobilenet_v2_small": "MobileNetV2"}


def short(report: Report) -> str:
    """Steps and memory of all networks beside each other, for the README."""
    named = {TITLES.get(name, name): found for name, found in report.networks.items()}
    head = ["", "goal"]
    for title in named:
        head += [f"{title}: step", "memory", "build and first step"]
    rows = []
    for name in _names(report):
        goal = f"<= {STEP_GOALS[name]:g}" if name in STEP_GOALS else ""
        cells = [
            _cells(name, found.rows.get(name, Row("not measured"))) for found in named.values()
        ]
        rows.append([name, goal, *(cell for line in cells for cell in line)])
    goals = sorted(set(MEMORY_GOALS.values()))
    notes = [
        f"Times float, on {_backend(report.backend)}; bold: as good as its goal (memory "
        f"{goals[0]:g}, of bsq {MEMORY_GOALS['bsq']:g}; build and first step {START_GOAL:g}).",
        *(_float(title, found) for title, found in named.items()),
        _projects(report),
        _where(report),
    ]
    return f"{grid(head, rows)}\n\n{' '.join(filter(None, notes))}"


def full(report: Report) -> str:
    """A table for each network, with what was tried."""
    head = [
        "",
        "CPU ms",
        "quartiles",
        "float",
        "x float",
        "quartiles",
        "rounds",
        "memory",
        "without libraries",
        "build and first step",
        "jit",
        "goals",
    ]
    parts = []
    for name, found in report.networks.items():
        title = TITLES.get(name, name)
        rows = [_full(n, found.rows[n]) for n in _names(report) if n in found.rows]
        parts.append(f"#### {title}\n\n{_float(title, found)}\n\n{grid(head, rows)}".strip())
    notes = [_busy(report), _projects(report), _where(report)]
    return "\n\n".join([*parts, " ".join(filter(None, notes))])


def verdicts(name: str, row: Row) -> str:
    """`step <= 1.15: met; ...`; nothing for other projects."""
    if name not in STEP_GOALS or row.reason:
        return ""
    goals = {
        "step": (row.ratio.median, STEP_GOALS[name]),
        "memory": (row.memory, MEMORY_GOALS[name]),
        "build and first step": (row.start, START_GOAL),
    }
    return "; ".join(
        f"{what} <= {goal:g}: {'met' if got <= goal else 'NOT met'}"
        for what, (got, goal) in goals.items()
    )


def _cells(name: str, row: Row) -> list[str]:
    if row.reason:
        return [_words(row.reason), "", ""]
    ours = name in STEP_GOALS
    spread = f" ({row.ratio.low:.2f} to {row.ratio.high:.2f})" + ", busy machine" * row.busy
    return [
        _marked(row.ratio.median, STEP_GOALS.get(name)) + spread,
        _marked(row.memory, MEMORY_GOALS.get(name)),
        _marked(row.start, START_GOAL if ours else None),
    ]


def _full(name: str, row: Row) -> list[str]:
    if row.reason:
        return [name, _words(row.reason), *[""] * 10]
    tried = [f"{jit}: {_tried(got)}" for jit, got in row.tried.items() if jit != row.jit]
    return [
        name,
        f"{1e3 * row.seconds.median:.0f}",
        _range(row.seconds, 1e3, 0),
        f"{1e3 * row.base.median:.0f}",
        f"{row.ratio.median:.3f}",
        _range(row.ratio, 1, 3) + ", busy machine" * row.busy,
        f"{row.ratio.count} of {row.ratio.count + row.ratio.discarded}",
        f"{row.memory:.2f}",
        f"{row.own:.2f}",
        f"{row.start:.2f}",
        row.jit + (f" ({'; '.join(tried)})" if tried else ""),
        verdicts(name, row),
    ]


def _words(reason: str) -> str:
    """A reason as a cell holds it."""
    return reason.replace("|", "\\|")


def _tried(got: float | str | None) -> str:
    return _words(got) if isinstance(got, str) else "-" if got is None else f"{got:.2f}"


def _range(spread: Spread, scale: float, digits: int) -> str:
    return f"{scale * spread.low:.{digits}f} to {scale * spread.high:.{digits}f}"


def _marked(value: float, goal: float | None) -> str:
    if not math.isfinite(value):
        return "-"
    return f"**{value:.2f}**" if goal is not None and value <= goal else f"{value:.2f}"


def _names(report: Report) -> list[str]:
    """Rows that any network has, methods first."""
    there = {name for found in report.networks.values() for name in found.rows}
    return [name for name in (*METHODS, *PROJECTS) if name in there]


def _backend(name: str) -> str:
    return {"tensorflow": "TensorFlow", "jax": "JAX"}[name]


def _float(title: str, found: Network) -> str:
    """`ResNet-20 in float: 456 ms a step ...`."""
    if found.base is None:
        return ""
    base = found.base
    others = [
        f"{1e3 * spread.median:.0f} ms with jit_compile {jit}"
        for jit, spread in base.seconds.items()
        if jit != base.jit
    ]
    step = f"{1e3 * base.seconds[base.jit].median:.0f} ms a step with jit_compile {base.jit}"
    return (
        f"{title} in float: {', '.join([step, *others])}, {base.memory:.0f} MiB, "
        f"{base.start:.1f} s to build and take the first step."
    )


def _busy(report: Report) -> str:
    busy = any(row.busy for found in report.networks.values() for row in found.rows.values())
    return "Busy machine: hardly a round was undisturbed, so that all count." if busy else ""


def _projects(report: Report) -> str:
    """What each project trains, with its versions."""
    said = []
    for name, what in PROJECTS.items():
        rows = [found.rows[name] for found in report.networks.values() if name in found.rows]
        versions = next((row.versions for row in rows if row.versions), None)
        if versions:
            said.append(f"{name}: {what} ({_versions(versions)})")
    if not said:
        return ""
    return f"Projects, each beside float in its own environment: {'; '.join(said)}."


def _versions(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _where(report: Report) -> str:
    """What rows were measured on: one sentence for each machine, set of versions and commit."""
    places: dict[str, list[str]] = {}
    for network, found in report.networks.items():
        for name, row in found.rows.items():
            if row.versions:
                ours = f", {_versions(row.versions)}" if name in METHODS else ""
                places.setdefault(f"{_machine(row.machine)}{ours}", []).append(
                    f"{name} ({TITLES.get(network, network)})"
                )
    ours = [text for text, names in places.items() if names[0].split(" ")[0] in METHODS]
    # Projects have their versions elsewhere: they say their place if no method was there.
    ours += [t for t in places if t not in ours and not any(o.startswith(t) for o in ours)]
    if len(ours) == 1:
        return f"Measured on {ours[0]}."
    return " ".join(f"Measured on {text}: {', '.join(places[text])}." for text in ours)


def _machine(found: Mapping[str, str]) -> str:
    place = f"{found['processor']}, {found['cores']} cores, {found['system']}"
    return f"{place}, python {found['python']}, commit {found['commit']}"
