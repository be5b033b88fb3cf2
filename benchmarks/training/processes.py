"""A process that is asked by lines and answers in JSON, each answer within a time."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Self


class Late(Exception):
    """No answer in time."""


class Failed(Exception):
    """The process said that it failed, or ended; the message is the reason."""


class Process:
    """What it prints besides answers is ignored; what it says to stderr goes to a file.

    It ends when this object is closed, and, as its requests then end, when this process ends.

    Args:
        command: to start it.
        environment: its variables, beside those of this process.
        log: the file.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: pathlib.Path
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        pipe = subprocess.PIPE
        with open(log, "w") as said:
            try:
                self._process = subprocess.Popen(
                    command, env={**os.environ, **environment}, stdin=pipe, stdout=pipe, stderr=said
                )
            except OSError as error:
                raise Failed(f"{command[0]}: {error.strerror}") from None
        self._unread = b""

    def ask(self, request: str, deadline: float) -> dict:
        """The answer to a request.

        Args:
            request: a line.
            deadline: when the answer must be there, by `time.monotonic`.

        Raises:
            Late: it was not; the process is ended.
            Failed: there will be none.
        """
        if self._process.stdin.closed:
            raise Failed(self._end())
        try:
            self._process.stdin.write(f"{request}\n".encode())
            self._process.stdin.flush()
        except OSError:
            pass  # It has ended: what it said last tells why.
        return self.answer(deadline)

    def answer(self, deadline: float) -> dict:
        """The next answer; raises as `ask`."""
        while True:
            line = self._line(deadline)
            if line.startswith(b"@"):
                found = json.loads(line[1:])
                if "error" in found:
                    raise Failed(found["error"])
                return found

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._unread:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                self.close()
                raise Late
            more = os.read(self._process.stdout.fileno(), 1 << 16)
            if not more:
                self.close()
                raise Failed(self._end())
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _end(self) -> str:
        return f"its process ended with status {self._process.returncode}"

    def close(self) -> None:
        """End the process; it has nothing to lose."""
        if self._process.stdin.closed:
            return
        with contextlib.suppress(OSError):  # requests that it did not read any more
            self._process.stdin.close()
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error) -> None:
        self.close()
