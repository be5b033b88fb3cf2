"""Time an exported file: `python -m tflite_export.benchmark FILE`."""

from __future__ import annotations

import json
import math
import pathlib
import sys

from absl import flags

from tflite_export.command_line import UsageError, run
from tflite_export.tables import as_text
from tflite_export.timing.bursts import Spread
from tflite_export.timing.files import FileTimes, time_files

USAGE = """\
python -m tflite_export.benchmark FILE [--against=OTHER]

Prints how long a run of a .tflite or .kbits file takes on this machine, for one sample, and how
long each of its operators takes alone. Packed .tflite files run with the kerasbits delegate. With
--against, both files take turns in short bursts, and the ratio is that within a round. Bursts in
which another program had the processor are discarded. To time one core:

taskset -c 1 python -m tflite_export.benchmark m.tflite --against=float.tflite

KERASBITS_ISA=avx2 (or scalar, ...) holds our kernels to an instruction set."""

COLUMNS = ("layer", "op", "input", "output", "us", "quartiles", "share", "GMAC/s")


def main(argv: list[str]) -> int:
    """Run the program with `argv`, its own name first; the exit status."""
    return run(argv, USAGE, _define, _work)


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("against", None, "Another file to compare with.", flag_values=values)
    flags.DEFINE_integer(
        "threads", 1, "Threads of the interpreter.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer(
        "runs", 30, "Bursts of each file and operator.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_bool("layers", True, "Time each operator as well.", flag_values=values)
    flags.DEFINE_string("json", None, "File to write the numbers to.", flag_values=values)


def _work(values: flags.FlagValues, rest: list[str]) -> None:
    if len(rest) != 1:
        raise UsageError(f"expected one file, got {len(rest)}")
    paths = [pathlib.Path(path) for path in (*rest, values.against) if path is not None]
    times, ratio = time_files(paths, values.threads, values.runs, values.layers)
    for of_file in times:
        print(as_table(of_file))
    if ratio is not None:
        print(as_ratio(times[0], times[1], ratio))
    if values.json:
        read = {
            "files": [of_file.to_dict() for of_file in times],
            "speed_ratio": None if ratio is None else ratio.to_dict(),
        }
        pathlib.Path(values.json).write_text(json.dumps(read, indent=2) + "\n")


def as_table(times: FileTimes) -> str:
    """The operators as a table under a line with the whole."""
    whole = times.whole
    title = f"{times.path}: {times.kind}, {times.threads} thread{'s' * (times.threads > 1)}, "
    title += f"{_us(whole.median)} us a run ({_us(whole.low)} to {_us(whole.high)})"
    if whole.discarded:
        title += f", {whole.discarded} of {whole.count + whole.discarded} bursts discarded"
    rows = []
    for part, took in times.parts:
        speed = f"{1e-9 * part.macs / took.median:.1f}" if part.macs and took else ""
        shapes = ("x".join(map(str, shape)) for shape in (part.input, part.output))
        rows.append((part.name, part.op, *shapes, *_cells(took, whole), speed))
    if rows:
        together = times.together
        share = f"{100 * together / whole.median:.0f} %"
        rows.append(("(together)", "", "", "", _us(together), "", share, ""))
        return as_text(title, COLUMNS, rows)
    return title


def as_ratio(ours: FileTimes, other: FileTimes, ratio: Spread) -> str:
    """One line: which is faster."""
    if ratio.median >= 1:
        return (
            f"{ours.path} is {ratio.median:.2f} times as fast as {other.path} "
            f"({ratio.low:.2f} to {ratio.high:.2f})"
        )
    return (
        f"{ours.path} takes {1 / ratio.median:.2f} times as long as {other.path} "
        f"({1 / ratio.high:.2f} to {1 / ratio.low:.2f})"
    )


def _cells(took: Spread | None, whole: Spread) -> tuple[str, str, str]:
    if took is None:
        return "", "", ""
    quartiles = f"{_us(took.low)} to {_us(took.high)}"
    return _us(took.median), quartiles, f"{100 * took.median / whole.median:.1f} %"


def _us(seconds: float) -> str:
    """Microseconds with three digits or more."""
    us = 1e6 * seconds
    digits = 0 if not math.isfinite(us) or us <= 0 else max(0, 2 - math.floor(math.log10(us)))
    return f"{us:,.{min(digits, 3)}f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv))
