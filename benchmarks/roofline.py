"""What a core does in registers, for each idea of a kernel: runs roofline.c."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
from collections.abc import Mapping

from benchmarks.clock import built
from benchmarks.folders import BUILT
from benchmarks.machine import pin

_SOURCE = pathlib.Path(__file__).with_name("roofline.c")


@dataclasses.dataclass(frozen=True)
class Roof:
    """MAC per cycle of an idea: quartiles over the rounds.

    Args:
        isa: instruction set, "avx2" or "avx512".
        name: of the idea.
        low, median, high: quartiles.
    """

    isa: str
    name: str
    low: float
    median: float
    high: float


def measure(rounds: int) -> list[Roof]:
    """All ideas that run here, in turns on one core; none where none is written for it.

    Raises:
        FileNotFoundError: no C compiler.
    """
    program = built(_SOURCE, BUILT / "roofline", "-O3")
    done = subprocess.run(
        [program, str(rounds)], check=True, stdout=subprocess.PIPE, text=True, preexec_fn=pin
    )
    return [read(line) for line in done.stdout.splitlines()]


def read(line: str) -> Roof:
    """A line of the program."""
    isa, name, *numbers = line.split("\t")
    return Roof(isa, name, *map(float, numbers))


def save(roofs: list[Roof], machine: Mapping[str, str], folder: pathlib.Path) -> None:
    """Write them as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine, "roofs": [dataclasses.asdict(roof) for roof in roofs]}
    (folder / "roofline.json").write_text(json.dumps(found, indent=1) + "\n")


def load(folder: pathlib.Path) -> list[Roof]:
    """What `save` wrote; none if it did not."""
    path = folder / "roofline.json"
    if not path.is_file():
        return []
    return [Roof(**roof) for roof in json.loads(path.read_text())["roofs"]]
