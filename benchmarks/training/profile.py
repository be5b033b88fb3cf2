"""Where the time of a step goes: `python -m benchmarks.training.profile apot --network=resnet20`.

Trains the float network and a method in turn, in this process and on one thread, under the profiler
of the backend, and prints the operators in which the two differ most: milliseconds a step and
executions, of both. On TensorFlow what XLA compiled is listed loop by loop ("..._fusion"), and
nested events are counted in their parents too, so the columns do not add up. With `--backend=jax`
the whole step is compiled, and loops are listed with what they belong to: "backward
input_quantizer/...". A compiler makes one loop of what belongs to several; it names one of them.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping

STEPS = 5
"""Steps that are profiled, after two that are not."""

Times = dict[str, tuple[float, float]]
"""Milliseconds a step and executions a step, by operator."""

_INSTRUCTION = re.compile(
    r'^\s+(?:ROOT )?%([\w.\-]+) = .*metadata=\{op_name="jit\(train_step\)/([^"]+)"'
)


def profile(network: str, method: str, batch: int, backend: str, dump: pathlib.Path) -> Times:
    """Times of the operators of a step.

    Args:
        network, method: of `models`.
        batch: examples.
        backend: "tensorflow" or "jax"; the one of Keras.
        dump: folder in which XLA writes what it compiles, for "jax".
    """
    import numpy as np

    from benchmarks.training import models

    random = np.random.default_rng(0)
    x = random.standard_normal((batch, 32, 32, 3)).astype(np.float32)
    y = random.integers(0, 10, batch)
    model = models.maker("kerasbits", network, method)(backend == "jax")
    for _ in range(2):
        model.train_on_batch(x, y)
    with tempfile.TemporaryDirectory() as folder:
        with _profiler(backend, folder):
            for _ in range(STEPS):
                model.train_on_batch(x, y)
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        places = compiled_places(dump) if backend == "jax" else None
        return _read(path, places)


def _profiler(backend: str, folder: str) -> contextlib.AbstractContextManager:
    if backend == "jax":
        import jax

        return jax.profiler.trace(folder)
    import tensorflow as tf

    return tf.profiler.experimental.Profile(folder)


def compiled_places(dump: pathlib.Path) -> dict[str, str]:
    """What each instruction of the step that XLA compiled last belongs to."""
    paths = dump.glob("*.jit_train_step.*after_optimizations.txt")
    newest = max(paths, key=lambda path: path.stat().st_mtime)
    found = (_INSTRUCTION.match(line) for line in newest.read_text().splitlines())
    return {match[1]: place(match[2]) for match in found if match}


def place(path: str) -> str:
    """Direction and place of an operation, without the name of its layer.

    Of "transpose(jvp(conv1))/input_quantizer/jit(_where)/select_n" "backward input_quantizer".
    """
    first, *inner = path.split("/")
    direction = "backward" if first.startswith("transpose(") else "forward"
    if "jvp(" not in first:
        return f"after {first}"
    parts = [part for part in inner if not re.search(r"\W|^branch_|^cond$|^while$|^body$", part)]
    return f"{direction} {parts[0]}" if parts else direction


def _read(path: pathlib.Path, places: Mapping[str, str] | None) -> Times:
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(path.read_bytes())
    found: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                name = operator(name) if places is None else instruction(name, places)
                if name is not None:
                    found[name][0] += event.duration_ps / 1e9 / STEPS
                    found[name][1] += 1 / STEPS
    return {name: (ms, count) for name, (ms, count) in found.items()}


def operator(event: str) -> str:
    """Of "layer/of/network:Operator" the last; of "Class::Method" and others all."""
    return event if "::" in event else event.rpartition(":")[2]


def instruction(event: str, places: Mapping[str, str]) -> str | None:
    """Place and kind of an instruction, for "copy.7" "copy"; None for events of Python."""
    if event not in places and not re.fullmatch(r"[a-z][\w\-]*(\.\d+)*", event):
        return None
    kind = re.sub(r"(\.\d+)+$", "", event)
    return f"{places[event]}/{kind}" if event in places else kind


def compared(base: Times, times: Times, rows: int) -> str:
    """A table of the operators in which two steps differ most."""
    nothing = (0.0, 0.0)
    pairs = [(base.get(n, nothing), times.get(n, nothing), n) for n in base | times]
    pairs.sort(key=lambda pair: -abs(pair[1][0] - pair[0][0]))
    head = f"{'more, ms':>10} {'float, ms':>18} {'method, ms':>18}  operator"
    lines = [
        f"{b[0] - a[0]:+10.2f} {a[0]:10.2f} ({a[1]:5.0f}) {b[0]:10.2f} ({b[1]:5.0f})  {name[:80]}"
        for a, b, name in pairs[:rows]
    ]
    return "\n".join([head, *lines])


@contextlib.contextmanager
def one_thread(backend: str) -> Iterator[pathlib.Path]:
    """Start the backend of Keras on one thread; gives the folder into which XLA writes."""
    os.environ["KERAS_BACKEND"] = backend
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples"))
    with tempfile.TemporaryDirectory() as folder:
        if backend == "jax":
            # What is no flag ends the flags that are read.
            dump = f"--xla_dump_to={folder} --xla_dump_hlo_as_text"
            one = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
            os.environ["XLA_FLAGS"] = f"{dump} {one}"
        else:
            import tensorflow as tf

            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        yield pathlib.Path(folder)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("method")
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--backend", choices=("tensorflow", "jax"), default="tensorflow")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rows", type=int, default=30)
    options = parser.parse_args()
    with one_thread(options.backend) as dump:
        from benchmarks.training import models

        if options.method not in models.METHODS or options.network not in models.NETWORKS:
            parser.error(f"expected one of {[*models.METHODS]} and of {[*models.NETWORKS]}")
        base, times = (
            profile(options.network, method, options.batch, options.backend, dump)
            for method in ("float", options.method)
        )
    print(compared(base, times, options.rows))


if __name__ == "__main__":
    main()
