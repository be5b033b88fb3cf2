"""What the numbers were measured on and with."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import subprocess

from benchmarks.folders import ROOT

PACKAGES = ("ai-edge-litert", "tensorflow", "keras", "numpy")


def describe() -> dict[str, str]:
    """Processor, system, versions and commit."""
    found = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}, {_libc()}",
        "python": platform.python_version(),
        "compiler": _first_line("cc", "--version"),
        "commit": commit(),
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of this tree, with a plus sign if the sources of the library differ from it."""
    name = _first_line("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    changed = _first_line(
        "git", "-C", str(ROOT), "status", "--porcelain", "--", "tflite_export", "kerasbits"
    )
    return name + "+" * bool(changed)


def pin(cores: int = 1, spared: int = 0) -> int:
    """Keep this process and those it starts on the last `cores` of its processors, but for the very
    last `spared` ones; how many it got.

    The first one serves most interrupts.
    """
    if not hasattr(os, "sched_setaffinity"):
        return min(cores, os.cpu_count() or 1)
    allowed = sorted(os.sched_getaffinity(0))
    kept = allowed[: max(len(allowed) - spared, 1)][-cores:]
    os.sched_setaffinity(0, kept)
    return len(kept)


def _processor() -> str:
    """Name, family and model: a virtual machine may hide the name."""
    fields = {}
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        return platform.processor() or platform.machine()
    name = fields.get("model name", platform.machine())
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields.get('model')})"
    return name


def _libc() -> str:
    return " ".join(platform.libc_ver()).strip() or "unknown libc"


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return next(iter(done.stdout.splitlines()), "")
