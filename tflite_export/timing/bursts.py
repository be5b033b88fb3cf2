"""Times of several functions that take turns.

One after the other they run a short burst of calls: A, B, C, A, B, C, ... So what a machine does
meanwhile (other programs, a changing clock) meets all of them alike, and a ratio is taken within
a round. A burst in which the process got less than 90 % of a processor is discarded: its wall time
says more about the other programs.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

BUSY = 0.9
"""Smallest share of a processor (CPU time over wall time) of a burst that counts."""

_MOST_CALLS = 1 << 20
_TRIES = 8
"""Bursts of a round before it is given up."""


@dataclasses.dataclass(frozen=True)
class Burst:
    """Some calls in a row.

    Args:
        calls: how many.
        wall: seconds on the clock.
        cpu: seconds of processor time, of all threads of the process.
    """

    calls: int
    wall: float
    cpu: float

    @property
    def counts(self) -> bool:
        """Whether the process had a processor for itself."""
        return self.cpu >= BUSY * self.wall

    @property
    def seconds(self) -> float:
        """Wall time of a call; not a number where the burst does not count."""
        return self.wall / self.calls if self.counts else math.nan


Subject = Callable[[int], Burst]
"""Runs a burst of so many calls."""


@dataclasses.dataclass(frozen=True)
class Spread:
    """Quartiles of what was measured.

    Args:
        low, median, high: quartiles; not numbers if nothing counts.
        count: rounds that count.
        discarded: rounds that do not, because no burst did.
    """

    low: float
    median: float
    high: float
    count: int
    discarded: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values: None for what is no number."""
        values = dataclasses.asdict(self)
        return {k: None if v != v else v for k, v in values.items()}


Times = dict[str, np.ndarray]
"""Seconds a call, by name: an array with a value for each round, NaN where it does not count."""


def subject(call: Callable[[], object]) -> Subject:
    """Bursts of a function of this process. One call before each warms the caches up."""

    def burst(calls: int) -> Burst:
        call()
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(calls):
            call()
        return Burst(calls, time.perf_counter() - wall, time.process_time() - cpu)

    return burst


def take_turns(subjects: Mapping[str, Subject], rounds: int, seconds: float = 0.002) -> Times:
    """Measure in turns.

    Args:
        subjects: what to measure.
        rounds: bursts of each that shall count. One that does not is tried again, a few times.
        seconds: wall time of a burst. A call that takes longer is a burst by itself.
    """
    calls = {name: _calls(burst, seconds) for name, burst in subjects.items()}
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, burst in subjects.items():
            times[name].append(_seconds(burst, calls[name]))
    return {name: np.array(found) for name, found in times.items()}


def _seconds(burst: Subject, calls: int) -> float:
    """Of a call, in the first burst that counts; not a number if none does."""
    for number in range(_TRIES):
        # A scheduler favours who slept: the next burst then is less likely to be interrupted.
        time.sleep(0.001 * number)
        found = burst(calls)
        if found.counts:
            return found.seconds
    return math.nan


def _calls(burst: Subject, seconds: float) -> int:
    """How many calls take so long. The first burst is thrown away: it may load and plan."""
    burst(1)
    calls = 1
    while True:
        found = burst(calls)
        if found.wall >= seconds / 8 or calls >= _MOST_CALLS:
            return min(_MOST_CALLS, max(1, round(seconds * found.calls / max(found.wall, 1e-9))))
        calls *= 4


def spread(values: np.ndarray) -> Spread:
    """Quartiles of the values that are numbers."""
    kept = values[np.isfinite(values)]
    quartiles = np.percentile(kept, [25, 50, 75]) if kept.size else [math.nan] * 3
    return Spread(*map(float, quartiles), int(kept.size), int(values.size - kept.size))


def speed_ratio(times: Times, name: str, reference: str) -> Spread:
    """How many times as fast as `reference` is `name`: quartiles of the ratios within a round."""
    return spread(times[reference] / times[name])
