"""Measure the cost of training: `python -m benchmarks.training`, a part of `make bench`.

python -m benchmarks.training --quick
python -m benchmarks.training --networks=resnet20 --methods=uniform,ls2 --json=/tmp/now.json
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Sequence

from benchmarks import machine, written
from benchmarks.folders import PICTURES, RESULTS, ROOT
from benchmarks.training import tables
from benchmarks.training.processes import Failed, Late
from benchmarks.training.results import Float, Network, Report, Row, load, resume
from benchmarks.training.subjects import METHODS, NETWORKS, PROJECTS_OF, Subject
from benchmarks.training.turns import Trained, Turns, beside, row

QUICK = Turns(rounds=7, steps=1, seconds=8.0, limit=300.0)
FULL = Turns(rounds=15, steps=1, seconds=60.0, limit=600.0)
FILES = {"tensorflow": "training", "jax": "training-jax"}


@dataclasses.dataclass(frozen=True)
class Run:
    """What to measure.

    Args:
        backend: of Keras.
        batch: samples of a step.
        turns: how long.
        methods: of kerasbits.
        projects: others.
        jits: "on", "off", whether the whole step is compiled: those that float is tried with.
        both: whether methods are tried with all of them, or as float is faster.
        machine: of `machine.describe`.
    """

    backend: str
    batch: int
    turns: Turns
    methods: Sequence[str]
    projects: Sequence[str]
    jits: Sequence[str]
    both: bool
    machine: dict[str, str]

    def subject(self, network: str, method: str, jit: str, kind: str = "kerasbits") -> Subject:
        """A way to train the network."""
        return Subject(kind, network, method, jit, self.backend, self.batch)


def measure(run: Run, networks: Iterable[str], report: Report, save: Callable[[], None]) -> None:
    """Measure rows and add them to the report, which is saved with each."""
    report.machine = run.machine
    for network in networks:
        found = report.networks.setdefault(network, Network())
        if run.methods:
            _methods(run, network, found, save)
        jit = found.base.jit if found.base else run.jits[0]
        for project in run.projects:
            start = time.monotonic()
            found.rows[project] = _project(run, network, project, jit)
            _tell(network, project, found.rows[project], start)
            save()


def _methods(run: Run, network: str, found: Network, save: Callable[[], None]) -> None:
    try:
        base, found.base = _float(run, network)
    except (Late, Failed) as error:
        reason = f"float: {error or f'did not finish in {run.turns.limit:g} s'}"
        found.rows |= {method: Row(reason, machine=run.machine) for method in run.methods}
        save()
        return
    say(f"{network}, float: jit {found.base.jit}, {found.base.start:.1f} s to build")
    save()
    with base:
        for method in run.methods:
            jits = run.jits if run.both else (found.base.jit,)
            start = time.monotonic()
            tried = [_try(run, base, run.subject(network, method, jit)) for jit in jits]
            found.rows[method] = better(tried, jits)
            _tell(network, method, found.rows[method], start)
            save()


def _float(run: Run, network: str) -> tuple[Trained, Float]:
    """The faster float network, still running, after a few turns of both."""
    deadline = time.monotonic() + run.turns.limit
    with contextlib.ExitStack() as running:
        both = [
            running.enter_context(Trained(run.subject(network, "float", jit), deadline))
            for jit in run.jits
        ]
        few = dataclasses.replace(run.turns, rounds=min(3, run.turns.rounds))
        _, last, first = beside(both[0], both[-1], few, deadline).spreads()
        seconds = dict(zip(run.jits, (first, last), strict=False))
        best = min(seconds, key=lambda jit: seconds[jit].median)
        trained = both[run.jits.index(best)]
        found = Float(best, seconds, trained.start, trained.peak(), run.machine, trained.versions)
        for other in both:
            if other is not trained:
                other.close()
        running.pop_all()
    return trained, found


def _try(run: Run, base: Trained, subject: Subject) -> Row:
    """A row, or why there is none."""
    try:
        return row(base, subject, run.turns, run.machine)
    except Late:
        reason = f"did not finish in {run.turns.limit:g} s"
    except Failed as error:
        reason = str(error)
    return Row(reason, tried={subject.jit: reason}, machine=run.machine)


def better(rows: Sequence[Row], jits: Sequence[str]) -> Row:
    """The row of the faster jit, with what the other gave."""
    finished = [found for found in rows if not found.reason]
    best = min(finished, key=lambda found: found.ratio.median, default=rows[0])
    return dataclasses.replace(
        best, tried={jit: found.tried[jit] for jit, found in zip(jits, rows, strict=True)}
    )


def _project(run: Run, network: str, project: str, jit: str) -> Row:
    """A project beside the float network of its own environment."""
    deadline = time.monotonic() + run.turns.limit
    try:
        base = Trained(run.subject(network, "float", jit, project), deadline)
    except Late:
        return Row(f"float: did not finish in {run.turns.limit:g} s", machine=run.machine)
    except Failed as error:
        return Row(str(error), machine=run.machine)
    with base:
        return _try(run, base, run.subject(network, "its", jit, project))


def _tell(network: str, name: str, found: Row, start: float) -> None:
    """A line at once: a whole run takes long."""
    spread = f"{found.ratio.median:.3f} ({found.ratio.low:.3f} to {found.ratio.high:.3f})"
    said = f"{spread}, memory {found.memory:.2f}, start {found.start:.2f}, jit {found.jit}"
    took = time.monotonic() - start
    say(f"{network}, {name}: {found.reason or said}{', busy machine' * found.busy} [{took:.0f} s]")


def say(what: str) -> None:
    """A line about what is going on."""
    print(f"bench: training: {what}", file=sys.stderr, flush=True)


def show(paths: Iterable[pathlib.Path], fill: bool) -> None:
    """Print the tables; fill those of README and docs, and draw, if wanted."""
    text = {}
    for path in paths:
        report = load(path)
        text[path.stem] = tables.short(report)
        text[f"{path.stem}-full"] = tables.full(report)
        print(f"\n### {report.backend}\n\n{tables.full(report)}")
        if fill:
            text[path.stem] += _picture(report, PICTURES / f"{path.stem}.png")
    for path in (ROOT / "README.md", ROOT / "docs" / "benchmarks.md") if fill else ():
        written.fill(path, text)


def _picture(report: Report, path: pathlib.Path) -> str:
    """Draw; what shows it in the README, or nothing where it cannot be drawn."""
    try:
        from benchmarks.training import picture
    except ImportError as error:
        say(f"no pictures: {error} (pip install '.[bench]')")
        return ""
    picture.draw(report, path)
    place = path.relative_to(ROOT).as_posix()
    return f"\n\n![Time of a training step over float]({place})"


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, checked; methods and projects as lists."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", default="tensorflow", choices=tuple(FILES))
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--methods", help="with commas; naming some leaves the projects out")
    parser.add_argument("--projects", help="with commas; naming some leaves the methods out")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, help="turns of each that count")
    parser.add_argument("--steps", type=int, help="of a turn")
    parser.add_argument("--limit", type=float, help="seconds for a row")
    parser.add_argument("--jit", choices=("best", "both", "off", "on"), help="of the whole step")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and --jit=best")
    parser.add_argument("--show", action="store_true", help="print and draw earlier results only")
    parser.add_argument("--json", type=pathlib.Path, help="another file, no README, no pictures")
    found = parser.parse_args(arguments)
    given = found.methods is not None or found.projects is not None
    known = {"networks": NETWORKS, "methods": METHODS, "projects": PROJECTS_OF[found.backend]}
    for what, names in known.items():
        text = getattr(found, what)
        asked = () if text is None and given else names if text is None else text.split(",")
        asked = [name for name in asked if name]
        if unknown := set(asked) - set(names):
            parser.error(f"expected --{what} among {', '.join(names)}, got {', '.join(unknown)}")
        setattr(found, what, asked)
    usual = QUICK if found.quick else FULL
    changed = {name: getattr(found, name) for name in ("rounds", "steps", "limit")}
    if any(value is not None and not value > 0 for value in (found.batch, *changed.values())):
        parser.error("expected --batch, --rounds, --steps, --limit above 0")
    found.turns = dataclasses.replace(usual, **{k: v for k, v in changed.items() if v})
    # On JAX a step that is not compiled goes operation by operation.
    every = ("on",) if found.backend == "jax" else ("off", "on")
    found.both = found.jit == "both" if found.jit else not found.quick
    found.jits = (found.jit,) if found.jit in ("off", "on") else every
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; the exit status, 130 if interrupted."""
    asked = options(arguments)
    paths = [RESULTS / f"{name}.json" for name in FILES.values()]
    path = asked.json or RESULTS / f"{FILES[asked.backend]}.json"
    if not asked.show:
        machine.pin()
        report = resume(path, asked.backend, asked.batch)
        fields = {f.name for f in dataclasses.fields(Run)} - {"machine"}
        run = Run(**{name: getattr(asked, name) for name in fields}, machine=machine.describe())
        start = time.monotonic()
        try:
            measure(run, asked.networks, report, lambda: report.save(path))
        except KeyboardInterrupt:
            say(f"interrupted; what was measured is in {path}")
            return 130
        say(f"took {time.monotonic() - start:.0f} s")
    show([path] if asked.json else [p for p in paths if p.is_file()], asked.json is None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
