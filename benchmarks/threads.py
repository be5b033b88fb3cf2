"""Two threads against one: what a second core adds, for us and for XNNPACK."""

from __future__ import annotations

from benchmarks.layers import stock_subjects
from benchmarks.nets import NETS, Net
from benchmarks.networks import our_subject
from benchmarks.results import Group, group
from tflite_export.timing.bursts import take_turns

GOAL = 1.8
"""How many times as fast two threads shall be as one."""


def measure(isa: str, rounds: int) -> tuple[list[Group], str]:
    """A group for each network."""
    return [_group(net, rounds) for net in NETS], ""


def _group(net: Net, rounds: int) -> Group:
    subjects = {f"{name}, 1 thread": s for name, s in stock_subjects(net.key).items()}
    subjects |= {f"{name}, 2 threads": s for name, s in stock_subjects(net.key, 2).items()}
    ours = {f"kerasbits, {n} thread{'s' * (n > 1)}": our_subject(net.packed, n) for n in (1, 2)}
    times = take_turns(subjects | ours, rounds)
    one, two = ours
    return group(net.title, times, dict.fromkeys((*subjects, one), 0), {two: {one: GOAL}})
