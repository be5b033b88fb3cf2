"""Where the time of a step goes: `python -m benchmarks.training.profile apot --network=resnet20`.

Trains the float network and a method in turn, in this process and on one thread, under TensorFlow's
profiler, and prints the operators in which the two differ most: milliseconds a step and executions,
of both. What XLA compiled is listed loop by loop ("..._fusion"). Nested events are counted in their
parents too, so the columns do not add up.
"""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples"))

import numpy as np
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from benchmarks.training import models

STEPS = 5
"""Steps that are profiled, after two that are not."""

Times = dict[str, tuple[float, float]]
"""Milliseconds a step and executions a step, by operator."""


def profile(network: str, method: str, batch: int) -> Times:
    """Times of the operators of a step."""
    random = np.random.default_rng(0)
    x = random.standard_normal((batch, 32, 32, 3)).astype(np.float32)
    y = random.integers(0, 10, batch)
    model = models.maker("kerasbits", network, method)(False)
    for _ in range(2):
        model.train_on_batch(x, y)
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(STEPS):
                model.train_on_batch(x, y)
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        return _read(path)


def _read(path: pathlib.Path) -> Times:
    space = xplane_pb2.XSpace()
    space.ParseFromString(path.read_bytes())
    found: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = operator(plane.event_metadata[event.metadata_id].name)
                found[name][0] += event.duration_ps / 1e9 / STEPS
                found[name][1] += 1 / STEPS
    return {name: (ms, count) for name, (ms, count) in found.items()}


def operator(event: str) -> str:
    """Of "layer/of/network:Operator" the last; of "Class::Method" and others all."""
    return event if "::" in event else event.rpartition(":")[2]


def compared(base: Times, times: Times, rows: int) -> str:
    """A table of the operators in which two steps differ most."""
    nothing = (0.0, 0.0)
    pairs = [(base.get(n, nothing), times.get(n, nothing), n) for n in base | times]
    pairs.sort(key=lambda pair: -abs(pair[1][0] - pair[0][0]))
    head = f"{'more, ms':>10} {'float, ms':>18} {'method, ms':>18}  operator"
    lines = [
        f"{b[0] - a[0]:+10.2f} {a[0]:10.2f} ({a[1]:5.0f}) {b[0]:10.2f} ({b[1]:5.0f})  {name[:60]}"
        for a, b, name in pairs[:rows]
    ]
    return "\n".join([head, *lines])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("method", choices=models.METHODS)
    parser.add_argument("--network", choices=models.NETWORKS, default="resnet20")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rows", type=int, default=30)
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    base, times = (profile(options.network, m, options.batch) for m in ("float", options.method))
    print(compared(base, times, options.rows))


if __name__ == "__main__":
    main()
