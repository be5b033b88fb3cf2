"""Measure one part in this process: `python -m benchmarks.part layers --isa=avx2`.

A process of its own, because an instruction set can be chosen once a process: by KERASBITS_ISA for
our kernels, and by `avx2_only` for XNNPACK.
"""

from __future__ import annotations

import argparse
import os
import sys

from benchmarks import avx2_only, layers, machine, networks, threads
from benchmarks.folders import RESULTS
from benchmarks.results import Report
from tflite_export import native

PARTS = {"layers": layers.measure, "networks": networks.measure, "threads": threads.measure}
CORES = {"threads": 2}


def main(argv: list[str]) -> None:
    """Write the results of a part; the exit status is 3 where XNNPACK cannot be held to AVX2."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--isa", default="best", choices=("best", "avx2"))
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args(argv)
    if options.isa == "avx2":
        os.environ["KERASBITS_ISA"] = "avx2"
        try:
            avx2_only.hold()
        except avx2_only.NotHeld as error:
            print(f"not held to AVX2: {error}", file=sys.stderr)
            sys.exit(3)
    wanted = CORES.get(options.part, 1)
    if machine.pin(wanted) == wanted:
        groups, note = PARTS[options.part](native.isa(), options.rounds)
    else:
        groups, note = [], f"Not measured: it takes {wanted} cores."
    if options.isa == "avx2":
        avx2_only.check()
    name = f"{options.part}-{options.isa}"
    report = Report(name, native.isa(), note, machine.describe(), tuple(groups))
    report.save(RESULTS)


if __name__ == "__main__":
    main(sys.argv[1:])
