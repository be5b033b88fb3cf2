"""Two threads against one: what a second core adds, for us and for XNNPACK."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

from benchmarks import rates
from benchmarks.cases import SHAPES, THREADED, packed_file
from benchmarks.layers import stock_subjects
from benchmarks.nets import NETS
from benchmarks.networks import our_subject
from benchmarks.results import Group, group
from tflite_export.timing.bursts import take_turns

GOAL = 1.8
"""How many times as fast two threads shall be as one."""


def measure(isa: str, rounds: int) -> tuple[list[Group], str]:
    """A group for each convolution and each network."""
    groups = []
    for shape in SHAPES:
        if shape.kind == "conv":
            files = {name: packed_file(shape, name) for name in THREADED}
            groups.append(_group(shape.title, shape.key, files, rounds))
    for net in NETS:
        groups.append(_group(net.title, net.key, {"packed .tflite": net.packed}, rounds))
    both = rates.two_processors(rounds)
    return groups, (
        f"In registers (roofline.c) the two processors of this machine do {both:.2f} times what "
        "one of them does: that bounds what a second thread can add to work that keeps a core busy."
    )


def _group(title: str, key: str, files: Mapping[str, pathlib.Path], rounds: int) -> Group:
    subjects, references, goals = {}, [], {}
    for count in (1, 2):
        threads = f"{count} thread{'s' * (count > 1)}"
        for name, one in stock_subjects(key, count).items():
            subjects[f"{name}, {threads}"] = one
            references.append(f"{name}, {threads}")
        for name, path in files.items():
            subjects[f"kerasbits {name}, {threads}"] = our_subject(path, count)
    for name in files:
        references.append(f"kerasbits {name}, 1 thread")
        goals[f"kerasbits {name}, 2 threads"] = {references[-1]: GOAL}
    times = take_turns(subjects, rounds)
    return group(title, times, dict.fromkeys(references, 0), goals)
