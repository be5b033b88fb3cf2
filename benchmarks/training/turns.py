"""A float network and a quantized one in turns of some steps.

What disturbs the machine disturbs both, and ratios are taken within a round. What counts is CPU
time on one core, as wall time of a shared machine waits for others. A turn with less CPU than nine
tenths of its wall time was interrupted: its round is left out, and another is taken instead.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Self

import numpy as np

from benchmarks.training.processes import Failed
from benchmarks.training.results import Row
from benchmarks.training.subjects import Subject
from tflite_export.timing.bursts import BUSY, Spread, spread

LEAST = 3
"""Undisturbed rounds that are enough; with fewer, those that were disturbed count too."""

MOST = 2
"""Rounds and seconds to take where many are disturbed, times those that are asked for."""

_GRACE = 60.0
"""Seconds that a turn of the float network may take: it has shown that it runs."""


@dataclasses.dataclass(frozen=True)
class Turns:
    """How many steps.

    Args:
        rounds: that shall count.
        steps: of a turn.
        seconds: of all rounds; then `LEAST` that count are enough.
        limit: seconds for a row, its building included.
    """

    rounds: int
    steps: int
    seconds: float
    limit: float


class Trained:
    """A subject in its process, built, with two steps taken: the second may compile once more.

    Raises:
        Late: not until the deadline.
        Failed: it cannot be built.
    """

    def __init__(self, subject: Subject, deadline: float) -> None:
        self.subject = subject
        self._process = subject.start()
        try:
            self.versions: Mapping[str, str] = self._process.answer(deadline)["versions"]
            built = self._process.ask("build", deadline)
            self.start: float = built["start"]
            self.before: float = built["before"]
            self.turn(1, deadline)
        except BaseException:
            self.close()
            raise

    def turn(self, steps: int, deadline: float) -> tuple[float, float]:
        """CPU seconds of a step, and CPU over wall time."""
        try:
            found = self._process.ask(f"steps {steps}", deadline)
        except Failed as error:
            raise Failed(f"float: {error}" if self.subject.method == "float" else error) from None
        return found["cpu"], found["share"]

    def peak(self) -> float:
        """Most memory so far, in MiB."""
        return self._process.ask("peak", time.monotonic() + _GRACE)["peak"]

    def close(self) -> None:
        """End its process."""
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error) -> None:
        self.close()


@dataclasses.dataclass(frozen=True)
class Rounds:
    """CPU seconds of a step of both, with an element for each round that counts."""

    base: np.ndarray
    ours: np.ndarray
    discarded: int
    busy: bool

    def spreads(self) -> tuple[Spread, Spread, Spread]:
        """Quartiles of ratios, of ours, of float."""
        values = (self.ours / self.base, self.ours, self.base)
        return tuple(dataclasses.replace(spread(v), discarded=self.discarded) for v in values)


def beside(base: Trained, ours: Trained, turns: Turns, deadline: float) -> Rounds:
    """Take turns, at most `MOST` times as many and as long as if none were disturbed.

    Raises:
        Late, Failed: as `Trained`.
    """
    good, disturbed, took = [], [], 0.0
    least = min(LEAST, turns.rounds)
    begin = time.monotonic()
    while len(good) < turns.rounds and (done := len(good) + len(disturbed)) < MOST * turns.rounds:
        start = time.monotonic()
        enough = begin + turns.seconds * (1 if len(good) >= least else MOST)
        if done >= least and (start > enough or start + took > deadline):
            break
        pair = base.turn(turns.steps, start + _GRACE), ours.turn(turns.steps, deadline)
        kept = good if all(share >= BUSY for _, share in pair) else disturbed
        kept.append([seconds for seconds, _ in pair])
        took = time.monotonic() - start
    busy = len(good) < least
    both = np.array(good + disturbed if busy else good)
    return Rounds(both[:, 0], both[:, 1], 0 if busy else len(disturbed), busy)


def row(base: Trained, ours: Subject, turns: Turns, machine: Mapping[str, str]) -> Row:
    """Build a subject, let it take turns with its float network, and end it.

    Raises:
        Late, Failed: as `Trained`.
    """
    deadline = time.monotonic() + turns.limit
    with Trained(ours, deadline) as trained:
        rounds = beside(base, trained, turns, deadline)
        ratio, seconds, base_seconds = rounds.spreads()
        peaks = trained.peak(), base.peak()
        return Row(
            jit=ours.jit,
            ratio=ratio,
            seconds=seconds,
            base=base_seconds,
            start=trained.start / base.start,
            memory=peaks[0] / peaks[1],
            own=(peaks[0] - trained.before) / (peaks[1] - base.before),
            busy=rounds.busy,
            tried={ours.jit: ratio.median},
            machine=machine,
            versions=trained.versions,
        )
