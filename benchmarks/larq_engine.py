"""Larq Compute Engine in an environment of its own, which takes turns with us through a pipe."""

from __future__ import annotations

import json
import pathlib
import subprocess
from typing import Self

from benchmarks.folders import LARQ_FILES, PEERS
from tflite_export.timing.bursts import Burst, Subject

REQUIREMENTS = (
    "tensorflow==2.15.1",
    "larq==0.14.0",
    "larq-compute-engine==0.16.0",
    "numpy<2",
)
VERSION = "0.16.0"
_PYTHON = PEERS / "larq" / "bin" / "python"
_WORKER = pathlib.Path(__file__).with_name("larq_worker.py")


def installed() -> bool:
    """Whether `make bench-peers` made its environment."""
    return _PYTHON.is_file()


def build_command() -> list[str]:
    """The command that writes its files, unless they are there."""
    return [str(_PYTHON), "-s", str(_WORKER), "build", str(LARQ_FILES)]


class Worker:
    """Its process, which runs bursts on request.

    Raises:
        RuntimeError: from a burst, if the process ended or refused a file.
    """

    def __init__(self):
        self._process = subprocess.Popen(
            [str(_PYTHON), "-s", str(_WORKER), "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def subject(self, name: str) -> Subject:
        """Bursts of a file of `build`."""
        path = str(LARQ_FILES / f"{name}.tflite")

        def burst(calls: int) -> Burst:
            answer = self._ask({"file": path, "calls": calls})
            return Burst(calls, answer["wall"], answer["cpu"])

        return burst

    def _ask(self, request: dict) -> dict:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"larq: expected an answer, got none (status {self._process.poll()})"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"larq: {answer['error']}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error) -> None:
        self._process.stdin.close()
        self._process.wait()
