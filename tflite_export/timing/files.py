"""How long files take, and the operators of each alone."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tflite_export.contents.reading import read_contents
from tflite_export.interpreter import Interpreter, open_runner
from tflite_export.timing.bursts import Spread, speed_ratio, spread, subject, take_turns
from tflite_export.timing.part import Part

_BURST, _SHORT = 0.002, 0.001
"""Seconds of a burst of a file, and of an operator: a file may have hundreds."""


@dataclasses.dataclass(frozen=True)
class FileTimes:
    """What a run of a file takes.

    Args:
        path: of the file.
        kind: "packed TFLite", "TFLite" or "kbits".
        threads: of the interpreter.
        whole: seconds of a run.
        parts: each operator with its seconds, None for one that does not run alone.
    """

    path: str
    kind: str
    threads: int
    whole: Spread
    parts: tuple[tuple[Part, Spread | None], ...]

    @property
    def together(self) -> float:
        """Seconds of all operators that ran alone."""
        return sum(took.median for _, took in self.parts if took is not None)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, times in seconds."""
        layers = [
            {
                **{name: getattr(part, name) for name in ("name", "op", "input", "output", "macs")},
                "seconds": None if took is None else took.to_dict(),
            }
            for part, took in self.parts
        ]
        named = {name: getattr(self, name) for name in ("path", "kind", "threads")}
        return {**named, "seconds": self.whole.to_dict(), "layers": layers}


def time_files(
    paths: Sequence[pathlib.Path], threads: int = 1, rounds: int = 30, layers: bool = True
) -> tuple[list[FileTimes], Spread | None]:
    """Times of one file or two that take turns, and how many times as fast the first is.

    Args:
        paths: files of any kind.
        threads: of the interpreter of .tflite files.
        rounds: bursts of each.
        layers: whether to time each operator too.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is corrupt, or the machine was too busy to measure.
    """
    contents = [read_contents(path) for path in paths]
    names = [f"{number} {path}" for number, path in enumerate(paths)]
    calls = {name: _whole(path, threads) for name, path in zip(names, paths, strict=True)}
    times = take_turns({name: subject(call) for name, call in calls.items()}, rounds, _BURST)
    found = []
    for name, path, of_file in zip(names, paths, contents, strict=True):
        whole = _measured(path, spread(times[name]))
        parts = _parts(path, threads, rounds) if layers else ()
        found.append(FileTimes(of_file.path, of_file.kind, threads, whole, parts))
    if len(names) < 2:
        return found, None
    return found, _measured(paths[0], speed_ratio(times, *names))


def _measured(path: pathlib.Path, found: Spread) -> Spread:
    """What was found, if anything was."""
    if not found.count:
        raise ValueError(
            f"file '{path}': expected bursts with a processor of their own, got none in "
            f"{found.discarded} rounds; is the machine busy?"
        )
    return found


def _whole(path: pathlib.Path, threads: int) -> Callable[[], object]:
    interpreter = Interpreter(path, threads)
    try:
        return _call(interpreter)
    except ValueError as error:
        raise ValueError(f"file '{path}': {error}") from None


def _parts(path: pathlib.Path, threads: int, rounds: int) -> tuple[tuple[Part, Spread | None], ...]:
    data = path.read_bytes()
    parts = _split(data)
    calls: dict[str, Callable[[], object]] = {}
    for number, part in enumerate(parts):
        if part.data is not None:
            try:
                calls[str(number)] = _call(open_runner(part.data, threads))
            except ValueError:
                continue  # an operator that the interpreter does not run alone
    times = take_turns({name: subject(call) for name, call in calls.items()}, rounds, _SHORT)
    took = {name: spread(values) for name, values in times.items()}
    found = [took.get(str(number)) for number in range(len(parts))]
    return tuple((part, s if s and s.count else None) for part, s in zip(parts, found, strict=True))


def _split(data: bytes) -> list[Part]:
    if data[4:8] == b"KBMF":
        from tflite_export.timing.parts_of_kbits import kbits_parts

        return kbits_parts(data)
    from tflite_export.timing.parts_of_tflite import tflite_parts

    return tflite_parts(data)


def _call(runner) -> Callable[[], object]:
    """Runs a file on random inputs of one sample."""
    rng = np.random.default_rng(0)
    arrays = []
    for _, shape, dtype in runner.inputs:
        sizes = [max(1, n) for n in shape]
        if np.issubdtype(dtype, np.floating):
            arrays.append(rng.normal(size=sizes).astype(dtype))
        elif dtype.itemsize == 1:
            low, high = (0, 2) if dtype == np.bool_ else (np.iinfo(dtype).min, np.iinfo(dtype).max)
            arrays.append(rng.integers(low, high, sizes).astype(dtype))
        else:
            arrays.append(np.zeros(sizes, dtype))  # ids, whose table has a row at least
    return runner.repeated(arrays)
