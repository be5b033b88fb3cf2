"""Trains one network in one process, in turns with others: `python training_worker.py KIND ...`.

Prints a JSON line once built: seconds of CPU for building and for the first step. Then a line with
a number runs so many steps, and a line with 0 asks for the peak of memory. Runs in the environments
of other projects too, so it asks for nothing but what it trains.

    python training_worker.py KIND NETWORK METHOD JIT BATCH
"""

import json
import os
import pathlib
import resource
import sys
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
# The examples first: their networks, not the module of that name beside this file.
sys.path[:0] = [str(HERE.parent / "examples"), str(HERE), str(HERE.parent)]


def main(kind, network, method, jit, batch):
    """Build, take the first step, then serve."""
    if os.environ.get("KERAS_BACKEND") == "jax" and kind == "kerasbits":
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["XLA_FLAGS"] = flags
    else:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    if kind == "kerasbits":
        import training_models as models
    else:
        import training_peers as models
    make = models.maker(kind, network, method)
    random = np.random.default_rng(0)
    x = random.standard_normal((batch, 32, 32, 3)).astype(np.float32)
    y = random.integers(0, 10, batch)
    before, start = peak(), time.process_time()
    model = make(jit)
    built = time.process_time()
    model.train_on_batch(x, y)
    first = time.process_time() - built
    say(build=built - start, first=first, before=before)
    for line in sys.stdin:
        steps = int(line)
        if not steps:
            say(peak=peak())
            continue
        cpu, wall = [], []
        for _ in range(steps):
            marks = time.process_time(), time.perf_counter()
            model.train_on_batch(x, y)
            cpu.append(time.process_time() - marks[0])
            wall.append(time.perf_counter() - marks[1])
        say(cpu=cpu, wall=wall)


def peak():
    """Most memory this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def say(**found):
    """One line, behind a mark: libraries print too."""
    print("@" + json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4], sys.argv[4] == "1", int(sys.argv[5]))
