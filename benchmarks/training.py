"""Cost of training: `python -m benchmarks.training`, a part of `make bench`.

Each subject trains in a process of its own; processes take turns of some steps, so that what
disturbs the machine disturbs all. What counts is CPU time on one core, as wall time of a shared
machine waits. Turns with less CPU than nine tenths of wall are left out, unless too few are left.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence

from benchmarks import machine, written
from benchmarks.folders import BUILT, PEERS, PICTURES, RESULTS, ROOT
from benchmarks.tables import grid

NETWORKS = ("resnet20", "mobilenet_v2_small")
METHODS = ("uniform", "bitpruning", "apot", "ls1", "gf", "ls2", "lst", "bsq", "bayesian_bits")
STEP_GOALS = dict.fromkeys(METHODS, 1.15) | {"bsq": 1.25, "bayesian_bits": 1.25}
MEMORY_GOALS = dict.fromkeys(METHODS, 1.3) | {"bsq": 1.5}
FIRST_GOAL = 2.0
PROJECTS = ("tfmot", "larq", "qkeras", "hgq2")
LEAST_CPU = 0.9


class Worker:
    """One subject in a process of its own."""

    def __init__(self, kind: str, network: str, method: str, jit: bool, options) -> None:
        python = sys.executable
        if kind not in ("kerasbits", "tfmot"):
            python = str(PEERS / kind / "bin" / "python")
        backend = "tensorflow" if kind != "kerasbits" else options.backend
        environment = {
            **os.environ,
            "KERAS_BACKEND": backend,
            "KERASBITS_PEER": kind,
            "JAX_PLATFORMS": "cpu",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        if kind in ("tfmot", "qkeras"):
            environment["TF_USE_LEGACY_KERAS"] = "1"
        script = str(ROOT / "benchmarks" / "training_worker.py")
        command = [python, script, kind, network, method, str(int(jit)), str(options.batch)]
        BUILT.mkdir(exist_ok=True)
        with open(BUILT / f"training-{kind}-{method}.log", "w") as log:
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(
                command, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=log
            )
        self.found = self._answer()
        self.turns: list[tuple[float, float]] = []

    def run(self, steps: int) -> None:
        """A turn: the median CPU time of its steps, and CPU over wall."""
        answer = self.ask(steps)
        cpu = statistics.median(answer["cpu"])
        self.turns.append((cpu, sum(answer["cpu"]) / sum(answer["wall"])))

    def ask(self, number: int) -> dict:
        """Send a number, get what is said."""
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        for line in self.process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        raise ChildProcessError(f"{' '.join(self.process.args)}: ended")

    def record(self) -> dict:
        """What was measured; ends the process."""
        peak = self.ask(0)["peak"]
        self.process.stdin.close()
        self.process.wait()
        steady = [cpu for cpu, part in self.turns if part >= LEAST_CPU]
        used = steady if len(steady) >= 3 else [cpu for cpu, _ in self.turns]
        return {
            "step": statistics.median(used),
            "low": min(used),
            "high": max(used),
            "turns": len(used),
            "waited": len(self.turns) - len(steady),
            "start": self.found["build"] + self.found["first"],
            "peak": peak,
            "own": peak - self.found["before"],
        }


def take_turns(subjects: Iterable[tuple], options) -> dict[str, dict]:
    """Measure subjects `(name, kind, network, method, jit)`; those that fail are left out."""
    workers: dict[str, Worker] = {}
    for name, *subject in subjects:
        print(f"bench: training, {name}", file=sys.stderr, flush=True)
        try:
            workers[name] = Worker(*subject, options)
        except (OSError, ChildProcessError) as error:
            print(f"bench: {name}: {error}", file=sys.stderr, flush=True)
    for worker in workers.values():
        worker.run(1)
        worker.turns.clear()
    for _ in range(options.rounds):
        for worker in workers.values():
            worker.run(options.steps)
    return {name: worker.record() for name, worker in workers.items()}


def measure(options) -> dict:
    """All networks: float with and without jit, then each method beside float; then projects."""
    results = {}
    for network in options.networks.split(","):
        floats = [(f"float, jit {j}", "kerasbits", network, "float", j) for j in (False, True)]
        if options.backend == "jax":
            floats = floats[1:]
        base = take_turns(floats, options)
        best = min(base, key=lambda name: base[name]["step"])
        rows = {}
        for method in options.methods.split(","):
            jits = (False, True) if options.jit and options.backend != "jax" else (False,)
            jits = (True,) if options.backend == "jax" else jits
            ours = [(f"{method}, jit {j}", "kerasbits", network, method, j) for j in jits]
            beside = next(f for f in floats if f[0] == best)
            rows[method] = _row(take_turns([beside, *ours], options), best)
        for project in options.projects.split(",") if options.projects else ():
            both = [(f"{project}, {m}", project, network, m, False) for m in ("float", "its")]
            found = take_turns(both, options)
            rows[project] = _row(found, f"{project}, float") if len(found) == 2 else None
        results[network] = {"float": base, "best": best, "rows": rows}
    return {
        "backend": options.backend,
        "batch": options.batch,
        "machine": machine.describe(),
        "networks": results,
    }


def _row(found: dict[str, dict], reference: str) -> dict | None:
    own = {name: record for name, record in found.items() if name != reference}
    if not own or reference not in found:
        return None
    name = min(own, key=lambda n: own[n]["step"])
    base, best = found[reference], own[name]
    ratios = {key: best[key] / base[key] for key in ("step", "start", "peak", "own")}
    return {"name": name, "ratios": ratios, "float": base, "found": own}


def table(report: dict) -> str:
    """A row for each method and project: ratios to float, with what was not reached."""
    head = ["", "step", "memory", "memory without libraries", "build and first step"]
    parts = []
    for network, results in report["networks"].items():
        rows = []
        for name, row in results["rows"].items():
            if row is None:
                rows.append([name, "not installed", "", "", ""])
                continue
            r, ours = row["ratios"], name in STEP_GOALS
            cells = [
                _cell(r["step"], STEP_GOALS[name] if ours else None),
                _cell(r["peak"], MEMORY_GOALS[name] if ours else None),
                f"{r['own']:.2f}",
                _cell(r["start"], FIRST_GOAL if ours else None),
            ]
            rows.append([name, *cells])
        base = results["float"][results["best"]]
        title = f"{network}, {report['backend']}; {results['best']}: {1e3 * base['step']:.0f} ms"
        parts.append(
            f"{title}, {base['peak']:.0f} MiB, {base['start']:.1f} s\n\n{grid(head, rows)}"
        )
    return "\n\n".join(parts)


def _cell(ratio: float, goal: float | None) -> str:
    if goal is None:
        return f"{ratio:.2f}"
    return f"**{ratio:.2f}**" if ratio <= goal else f"{ratio:.2f} (goal {goal:g})"


def draw(report: dict, path) -> None:
    """Step-time ratios as bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(next(iter(report["networks"].values()))["rows"])
    figure, axis = pyplot.subplots(figsize=(8, 4.5))
    for number, (network, results) in enumerate(report["networks"].items()):
        values = [
            (results["rows"].get(n) or {"ratios": {"step": 0}})["ratios"]["step"] for n in names
        ]
        axis.bar([i + 0.4 * number - 0.2 for i in range(len(names))], values, 0.4, label=network)
    axis.axhline(1, color="black", linewidth=0.8)
    axis.axhline(1.15, color="gray", linestyle="--", linewidth=0.8, label="goal of most, 1.15")
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axis.set_ylabel("training step, times float")
    axis.set_title(f"CPU time of a step, one core, {report['backend']}, batch {report['batch']}")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def show(reports: Sequence[dict]) -> None:
    """Print tables, fill README and docs, draw."""
    text = {}
    for report in reports:
        name = "training" if report["backend"] == "tensorflow" else f"training-{report['backend']}"
        text[name] = table(report)
        print(f"\n{text[name]}")
        try:
            draw(report, PICTURES / f"{name}.png")
        except ImportError as error:
            print(f"bench: no pictures: {error} (pip install '.[bench]')", file=sys.stderr)
    for path in (ROOT / "README.md", ROOT / "docs" / "benchmarks.md"):
        written.fill(path, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", default="tensorflow", choices=("tensorflow", "jax"))
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--projects", default=",".join(PROJECTS), help="'' leaves them out")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3, help="of a turn")
    parser.add_argument("--jit", action="store_true", help="methods with jit_compile too")
    parser.add_argument("--show", action="store_true", help="print and draw earlier results only")
    parser.add_argument("--quick", action="store_true", help="3 turns of 2 steps")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.steps = 3, 2
    if options.backend == "jax":
        options.projects = ""
    name = "training" if options.backend == "tensorflow" else "training-jax"
    if not options.show:
        machine.pin()
        RESULTS.mkdir(parents=True, exist_ok=True)
        report = measure(options)
        (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    paths = [RESULTS / f"{n}.json" for n in ("training", "training-jax")]
    show([json.loads(p.read_text()) for p in paths if p.is_file()])
    return 0


if __name__ == "__main__":
    sys.exit(main())
