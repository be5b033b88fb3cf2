"""Whole networks: our packed and .kbits files against the stock float32 and int8 files."""

from __future__ import annotations

import numpy as np

from benchmarks.cases import FLOAT, INT8, KBITS, LARQ, PACKED
from benchmarks.folders import LARQ_FILES
from benchmarks.layers import larq_worker, stock_subjects
from benchmarks.nets import NETS
from benchmarks.results import Group, group
from tflite_export import Interpreter
from tflite_export.timing.bursts import Subject, subject, take_turns


def measure(isa: str, rounds: int) -> tuple[list[Group], str]:
    """A group for each network, and a note."""
    groups = []
    with larq_worker() as worker:
        for net in NETS:
            subjects = stock_subjects(net.key)
            if worker is not None and net.larq and (LARQ_FILES / f"{net.key}.tflite").is_file():
                subjects[LARQ] = worker.subject(net.key)
            subjects |= {PACKED: our_subject(net.packed), KBITS: our_subject(net.kbits)}
            times = take_turns(subjects, rounds)
            references = dict.fromkeys((FLOAT, INT8, LARQ), 0)
            groups.append(
                group(net.title, times, references, {PACKED: net.goals, KBITS: net.goals})
            )
    return groups, "" if worker else "Larq Compute Engine is not installed (`make bench-peers`)."


def our_subject(path, threads: int = 1) -> Subject:
    """Bursts of one of our files on a random sample."""
    interpreter = Interpreter(path, threads)
    rng = np.random.default_rng(0)
    inputs = [
        rng.normal(size=[max(1, n) for n in shape]).astype(dtype)
        for _, shape, dtype in interpreter.inputs
    ]
    return subject(interpreter.repeated(inputs))
