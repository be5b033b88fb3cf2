"""What a core does in a cycle: ideas of kernels in registers (roofline.c), and the kernels of the
library (kernel_rates.c)."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics
import subprocess
from collections.abc import Mapping, Sequence

from benchmarks import as_json
from benchmarks.clock import built
from benchmarks.folders import BUILT, ROOT
from benchmarks.machine import pin

_SOURCE = pathlib.Path(__file__).with_name("roofline.c")
_KERNELS = ROOT / "tflite_export" / "kernels"


@dataclasses.dataclass(frozen=True)
class Rate:
    """Work a cycle: quartiles over the rounds.

    Args:
        isa: instruction set, "avx2" or another.
        name: of the idea or kernel.
        low, median, high: quartiles, in MAC or values a cycle.
    """

    isa: str
    name: str
    low: float
    median: float
    high: float


def roofs(rounds: int) -> list[Rate]:
    """All ideas that run here, in turns on one core; none where none is written for it.

    Raises:
        FileNotFoundError: no C compiler.
    """
    return _run(built(_SOURCE, BUILT / "roofline", "-O3"), rounds)


def kernels(rounds: int) -> list[Rate]:
    """All kernels that run here, in turns on one core, compiled as the library is.

    Raises:
        subprocess.CalledProcessError: no make, or no C compiler.
    """
    folder = BUILT / "kernels"
    program = folder / "kernel_rates"
    command = ["make", "--silent", "-C", str(_KERNELS), f"BUILD={folder}", str(program)]
    subprocess.run(command, check=True)
    return _run(program, rounds)


def two_processors(rounds: int) -> float:
    """What two processors do in registers, as a multiple of what one does: 2 if each is a core,
    about 1 if they are the two threads of one.

    The median over the ideas, with one program on each. This process may use two processors.

    Raises:
        FileNotFoundError: no C compiler.
    """
    program = built(_SOURCE, BUILT / "roofline", "-O3")
    alone = _run(program, rounds)
    pair = [_start(program, rounds, number) for number in (0, 1)]
    first, second = (_read(process) for process in pair)
    both = [a.median + b.median for a, b in zip(first, second, strict=True)]
    return statistics.median(b / one.median for b, one in zip(both, alone, strict=True))


def read(line: str) -> Rate:
    """A line of the programs."""
    isa, name, *numbers = line.split("\t")
    return Rate(isa, name, *map(float, numbers))


def save(rates: Sequence[Rate], machine: Mapping[str, str], path: pathlib.Path) -> None:
    """Write them as JSON."""
    as_json.write(path, {"machine": machine, "rates": list(rates)})


def load(path: pathlib.Path) -> list[Rate]:
    """What `save` wrote; none if there is no such file."""
    if not path.is_file():
        return []
    return [Rate(**rate) for rate in json.loads(path.read_text())["rates"]]


def _run(program: pathlib.Path, rounds: int) -> list[Rate]:
    return _read(_start(program, rounds, 0))


def _start(program: pathlib.Path, rounds: int, number: int) -> subprocess.Popen:
    """Run a program on one of the last processors."""
    return subprocess.Popen(
        [program, str(rounds)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: pin(1, number),
    )


def _read(process: subprocess.Popen) -> list[Rate]:
    lines = process.communicate()[0].splitlines()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return [read(line) for line in lines]
