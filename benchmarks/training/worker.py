"""Trains one network in a process of its own, on request: `python worker.py KIND ...`.

Says in a line of JSON which packages it has, then answers each line that it reads: "build" (build,
and take the first step), "steps N", "peak". It ends at once when there is nobody to read from any
more, even amid a step. Runs in the environments of other projects too, so it asks for nothing but
what it trains.

    python worker.py KIND NETWORK METHOD JIT BATCH
"""

import contextlib
import importlib
import importlib.metadata
import json
import os
import pathlib
import queue
import re
import resource
import sys
import threading
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Not the folder of this file: its names are no packages.
sys.path[:1] = [str(ROOT / "examples"), str(ROOT)]

PACKAGES = {
    "tensorflow": "tensorflow",
    "keras": "keras",
    "tf_keras": "tf_keras",
    "jax": "jax",
    "tensorflow_model_optimization": "tensorflow-model-optimization",
    "larq": "larq",
    "qkeras": "QKeras",
    "hgq": "HGQ2",
}
"""Distributions of the modules whose versions count."""


def main(kind, network, method, jit, batch):
    """Serve until the reader of the answers has gone."""
    requests = listen()
    try:
        make = imported(kind, network, method)
        say(versions=versions())
        serve(requests, make, jit, batch)
    except Exception as error:
        traceback.print_exc()
        text = re.sub(r"\x1b\[\d*m", "", str(error)).split()
        say(error=f"{type(error).__name__}: {' '.join(text)[:200]}")


def listen():
    """A queue of the lines that come, from a thread that ends the process with the last of them."""
    requests = queue.Queue()

    def read():
        for line in sys.stdin:
            requests.put(line.split())
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return requests


def imported(kind, network, method):
    """A function that builds the model; everything it needs is imported, and uses one thread."""
    backend = os.environ["KERAS_BACKEND"]
    if backend not in ("tensorflow", "jax"):
        raise ValueError(f"expected a backend, got {backend!r}")
    if backend == "jax":
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["XLA_FLAGS"] = flags
        # Keras imports it, where it is, once it serializes a layer. So it counts for nobody.
        with contextlib.suppress(ImportError):
            importlib.import_module("tensorflow")
    else:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    if kind == "kerasbits":
        from benchmarks.training import models
    else:
        from benchmarks.training import peer_models as models
    return models.maker(kind, network, method)


def serve(requests, make, jit, batch):
    """Answer requests."""
    import numpy as np

    random = np.random.default_rng(0)
    x = random.standard_normal((batch, 32, 32, 3)).astype(np.float32)
    y = random.integers(0, 10, batch)
    model = None
    while True:
        what, *number = requests.get()
        if what == "build":
            before, start = peak(), time.process_time()
            model = make(jit)
            model.train_on_batch(x, y)
            say(start=time.process_time() - start, before=before)
        elif what == "steps":
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(int(number[0])):
                model.train_on_batch(x, y)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            say(cpu=cpu / int(number[0]), share=cpu / wall)
        else:
            say(peak=peak())


def versions():
    """Of the packages that are loaded, without the backend that is not used."""
    unused = {"tensorflow": "jax", "jax": "tensorflow"}[os.environ["KERAS_BACKEND"]]
    return {
        name: importlib.metadata.version(name)
        for module, name in PACKAGES.items()
        if module in sys.modules and module != unused
    }


def peak():
    """Most memory this program ever had, in MiB.

    `getrusage` may give more: on Linux its figure begins with that of the process that started
    this one.
    """
    status = pathlib.Path("/proc/self/status")
    if status.is_file():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 2**10
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def say(**found):
    """One line, behind a mark: libraries print too."""
    print("@" + json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4], sys.argv[4] == "on", int(sys.argv[5]))
