"""All benchmarks of inference: `make bench`, or `python -m benchmarks`. See docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable

from benchmarks import larq_engine, machine, rates, tables, written
from benchmarks.folders import BUILT, PICTURES, RESULTS, ROOT
from benchmarks.results import Report, load

CYCLES = {"roofline": rates.roofs, "kernels": rates.kernels}
"""Parts that count work per cycle."""

COMPARED = ("layers", "networks", "threads")
PARTS = (*CYCLES, *COMPARED)
ISAS = ("avx2", "best")
ROUNDS, QUICK = 40, 8
NOT_HELD = 3
"""Exit status of a part where XNNPACK cannot be held to AVX2."""


def main() -> int:
    """Measure, print, and write JSON, tables and pictures; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help=f"parts, with commas: {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"{ROUNDS} unless given")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} rounds")
    parser.add_argument("--show", action="store_true", help="print and draw earlier results only")
    options = parser.parse_args()
    only = options.only.split(",") if options.only else list(PARTS)
    if unknown := set(only) - set(PARTS):
        parser.error(f"expected --only among {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    if not options.show:
        measure(only, QUICK if options.quick else options.rounds)
    found = {
        name: load(path)
        for part in COMPARED
        for isa in ISAS
        if (path := RESULTS / f"{(name := f'{part}-{isa}')}.json").is_file()
    }
    for name, report in found.items():
        if name.partition("-")[0] in only:
            print(f"\n### {name}\n\n{tables.machine(report.machine)}; ours: {report.isa}\n")
            print(tables.threads(report) if name.startswith("threads") else tables.full(report))
    write(found)
    return 0


def measure(only: list[str], rounds: int) -> None:
    """Build what is needed and measure the parts, each in a process of its own."""
    BUILT.mkdir(exist_ok=True)
    for part in CYCLES.keys() & set(only):
        say(part)
        rates.save(CYCLES[part](rounds), machine.describe(), RESULTS / f"{part}.json")
    if "layers" in only or "threads" in only:
        build("layers")
    if "networks" in only or "threads" in only:
        build("networks")
    if larq_engine.installed() and {"layers", "networks"} & set(only):
        logged("files of Larq", larq_engine.build_command(), "larq")
    for part in COMPARED:
        for isa in ISAS if part in only else ():
            say(f"{part}, {isa}")
            command = [sys.executable, "-m", "benchmarks.part", part, f"--isa={isa}"]
            logged(part, [*command, f"--rounds={rounds}"], f"{part}-{isa}", (0, NOT_HELD))


def build(what: str) -> None:
    """Build files of ours and stock ones."""
    logged(f"files of {what}", [sys.executable, "-m", f"benchmarks.build_{what}"], f"build-{what}")


def logged(title: str, command: list[str], log: str, expected: tuple[int, ...] = (0,)) -> None:
    """Run a program, with what it says in a file; what it says is shown if it fails.

    Raises:
        SystemExit: the program failed.
    """
    say(title)
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "KERAS_BACKEND": "tensorflow"}
    path = BUILT / f"{log}.log"
    with open(path, "w") as output:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, check=False
        )
    if done.returncode not in expected:
        raise SystemExit(f"{title}: status {done.returncode}\n{path.read_text()[-3000:]}")
    if done.returncode == NOT_HELD:
        print(path.read_text().splitlines()[-1], file=sys.stderr, flush=True)


def say(what: str) -> None:
    """A line about what is going on."""
    print(f"bench: {what}", file=sys.stderr, flush=True)


def write(found: dict[str, Report]) -> None:
    """Draw the pictures, and fill the tables of README.md and docs/benchmarks.md."""
    roofs, kernels = (rates.load(RESULTS / f"{part}.json") for part in CYCLES)
    text = {"roofline": tables.roofs(roofs)} if roofs else {}
    if kernels:
        text["kernels"] = tables.kernels(kernels)
    short: dict[str, Callable[[Report], str]] = {
        "layers": tables.summary,
        "networks": tables.networks,
        "threads": tables.threads,
    }
    for name, report in found.items():
        text[name] = short[name.partition("-")[0]](report)
        text[f"{name}-full"] = tables.full(report)
        text[f"{name}-machine"] = f"Measured on {tables.machine(report.machine)}."
    for path in (ROOT / "README.md", ROOT / "docs" / "benchmarks.md"):
        written.fill(path, text)
    try:
        from benchmarks import pictures
    except ImportError as error:
        say(f"no pictures: {error} (pip install '.[bench]')")
        return
    by_part = {p: [r for n, r in found.items() if n.startswith(p)] for p in ("layers", "networks")}
    if by_part["layers"]:
        pictures.speed_against_bits(by_part["layers"], roofs, PICTURES / "speed_against_bits.png")
    if by_part["networks"]:
        pictures.network_times(by_part["networks"], PICTURES / "networks.png")


if __name__ == "__main__":
    sys.exit(main())
