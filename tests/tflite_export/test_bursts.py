"""Times that take turns: bursts, discarding, ratios within a round.

The subjects here do nothing: they say what they took.
"""

import itertools
import math

import numpy as np
import pytest

from tflite_export.timing import bursts
from tflite_export.timing.bursts import Burst, speed_ratio, spread, subject, take_turns


class Said:
    """A subject that says what it took: `seconds` a call, busy or not as the list tells."""

    def __init__(self, name, log, seconds, shares=()):
        self.name, self.log = name, log
        self.seconds, self.shares = itertools.cycle([seconds]), iter(shares)

    def __call__(self, calls):
        self.log.append((self.name, calls))
        wall = calls * next(self.seconds)
        return Burst(calls, wall, wall * next(self.shares, 1.0))


def test_a_burst_counts_with_nine_tenths_of_a_processor():
    assert Burst(4, 1.0, 0.9).counts
    assert Burst(4, 1.0, 1.9).counts  # two threads
    assert Burst(4, 1.0, 0.9).seconds == 0.25
    assert not Burst(4, 1.0, 0.89).counts
    assert math.isnan(Burst(4, 1.0, 0.89).seconds)


def test_subjects_take_turns():
    log = []
    subjects = {name: Said(name, log, 0.5) for name in "abc"}
    times = take_turns(subjects, rounds=4, seconds=1.0)
    measured = log[-12:]
    assert measured == [(name, 2) for _ in range(4) for name in "abc"]  # 2 calls fill a second
    assert {name: list(found) for name, found in times.items()} == {n: [0.5] * 4 for n in "abc"}


@pytest.mark.parametrize(("seconds", "calls"), [(1e-4, 20), (1e-6, 2000), (5.0, 1)])
def test_a_burst_is_as_long_as_asked(seconds, calls):
    log = []
    take_turns({"a": Said("a", log, seconds)}, rounds=1, seconds=0.002)
    assert log[-1] == ("a", calls)
    assert log[0] == ("a", 1)


def test_a_burst_that_does_not_count_is_tried_again(monkeypatch):
    slept = []
    monkeypatch.setattr(bursts.time, "sleep", slept.append)
    log = []
    # Two to find the number of calls; then a disturbed burst, a good one, and only disturbed ones.
    said = Said("a", log, 1.0, [1, 1, 0.5, 1.0] + [0.2] * 100)
    times = take_turns({"a": said}, rounds=2, seconds=1.0)["a"]
    assert times[0] == 1.0
    assert math.isnan(times[1])
    assert 4 < len(log) < 30  # it gave up
    assert slept[0] == 0


def test_quartiles_of_what_counts():
    found = spread(np.array([4.0, np.nan, 1.0, 2.0, 3.0, 5.0]))
    assert (found.low, found.median, found.high) == (2.0, 3.0, 4.0)
    assert (found.count, found.discarded) == (5, 1)
    nothing = spread(np.array([np.nan, np.nan]))
    assert math.isnan(nothing.median)
    assert (nothing.count, nothing.discarded) == (0, 2)
    assert nothing.to_dict() == {
        "low": None, "median": None, "high": None, "count": 0, "discarded": 2,
    }  # fmt: skip


def test_ratios_are_taken_within_a_round():
    """The clock halves in the middle: both take twice as long, and the ratio stays."""
    times = {
        "ours": np.array([1.0, 1.0, 2.0, np.nan, 2.0]),
        "theirs": np.array([3.0, 3.0, 6.0, 6.0, np.nan]),
    }
    found = speed_ratio(times, "ours", "theirs")
    assert (found.low, found.median, found.high) == (3.0, 3.0, 3.0)
    assert (found.count, found.discarded) == (3, 2)
    assert speed_ratio(times, "theirs", "ours").median == pytest.approx(1 / 3)


def test_a_function_is_called_once_more_to_warm_up():
    calls = []
    found = subject(lambda: calls.append(1))(5)
    assert len(calls) == 6
    assert found.calls == 5
    assert found.wall > 0
