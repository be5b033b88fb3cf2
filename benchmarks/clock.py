"""The clock of the core, as a subject that takes turns with the others."""

from __future__ import annotations

import ctypes
import pathlib
import shutil
import subprocess
from collections.abc import Callable

from benchmarks.folders import BUILT

NAME = "(clock)"
CYCLES = 100_000
"""Cycles of a call."""

_SOURCE = pathlib.Path(__file__).with_name("clock.c")


def compiler() -> str | None:
    """The C compiler, None if there is none."""
    return next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)


def built(source: pathlib.Path, target: pathlib.Path, *flags: str) -> pathlib.Path:
    """Compile a C file unless that was done before.

    Raises:
        FileNotFoundError: no C compiler.
        subprocess.CalledProcessError: the compiler refused it.
    """
    sources = (source, *source.parent.glob("*.h"))
    if target.is_file() and target.stat().st_mtime >= max(s.stat().st_mtime for s in sources):
        return target
    found = compiler()
    if found is None:
        raise FileNotFoundError("expected a C compiler (cc, gcc or clang), found none")
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([found, "-O2", "-std=gnu11", *flags, str(source), "-o", str(target)], check=True)
    return target


def ticks() -> Callable[[], object]:
    """A function that takes `CYCLES` cycles.

    Raises:
        FileNotFoundError: no C compiler.
    """
    library = ctypes.CDLL(str(built(_SOURCE, BUILT / "clock.so", "-shared", "-fPIC")))
    library.chain.argtypes, library.chain.restype = (ctypes.c_uint64,), ctypes.c_uint64
    count = ctypes.c_uint64(CYCLES)
    return lambda: library.chain(count)
