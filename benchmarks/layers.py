"""Single layers: ours by width, against XNNPACK and Larq Compute Engine on the same shape."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from benchmarks import clock, larq_engine
from benchmarks.cases import FLOAT, INT8, KINDS, LARQ, SHAPES, Kind, Shape, blob_name
from benchmarks.folders import BLOBS, LARQ_FILES, stock_file
from benchmarks.results import Group, group
from tflite_export.native import NativeOp
from tflite_export.timing.bursts import Subject, subject, take_turns

Subjects = dict[str, Subject]


def measure(isa: str, rounds: int) -> tuple[list[Group], str]:
    """A group for each shape, and a note."""
    groups = []
    with larq_worker() as worker:
        for shape in SHAPES:
            groups.append(_group(shape, isa, rounds, worker))
    return groups, "" if worker else "Larq Compute Engine is not installed (`make bench-peers`)."


@contextlib.contextmanager
def larq_worker() -> Iterator[larq_engine.Worker | None]:
    """The process of Larq Compute Engine, None where it is not installed."""
    if not larq_engine.installed():
        yield None
        return
    with larq_engine.Worker() as worker:
        yield worker


def stock_subjects(key: str, threads: int = 1) -> Subjects:
    """Bursts of the stock files of a layer or network."""
    return {
        name: subject(stock_call(stock_file(key, form).read_bytes(), threads))
        for name, form in ((INT8, "int8"), (FLOAT, "float"))
    }


def stock_call(data: bytes, threads: int = 1):
    """A function that runs a stock file in LiteRT on random inputs."""
    interpreter = Interpreter(model_content=data, num_threads=threads)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        x = rng.normal(size=detail["shape"])
        scaled = np.clip(40 * x, -128, 127) if detail["dtype"] == np.int8 else x
        interpreter.set_tensor(detail["index"], scaled.astype(detail["dtype"]))
    return interpreter.invoke


def _goals(kind: Kind, isa: str) -> dict[str, float]:
    """Those of AVX2; with better instructions, which XNNPACK's int8 has too, to be no slower."""
    return dict(kind.goals) if isa == "avx2" else {**kind.goals, INT8: 1.0}


def _group(shape: Shape, isa: str, rounds: int, worker: larq_engine.Worker | None) -> Group:
    """Everything on one shape in turns."""
    subjects: Subjects = {clock.NAME: subject(clock.ticks())} if clock.compiler() else {}
    subjects |= stock_subjects(shape.key)
    if worker is not None and (LARQ_FILES / f"{shape.key}.tflite").is_file():
        subjects[LARQ] = worker.subject(shape.key)
    kinds = KINDS[shape.kind]
    x = np.random.default_rng(0).normal(size=shape.input).astype(np.float32)
    with contextlib.ExitStack() as opened:
        for kind in kinds:
            blob = (BLOBS / shape.key / blob_name(kind)).read_bytes()
            subjects[kind.name] = subject(opened.enter_context(NativeOp(blob)).repeated(x))
        times = take_turns(subjects, rounds)
    references = dict.fromkeys((INT8, FLOAT, LARQ), shape.macs)
    roofs = {kind.name: kind.roof.get(isa) for kind in kinds}
    goals = {kind.name: _goals(kind, isa) for kind in kinds}
    return group(shape.title, times, references, goals, shape.macs, roofs)
