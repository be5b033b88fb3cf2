"""Sizes of ResNet-20's files and times of the stock ones: the table in docs/stock.md.

Kernels `Uniform(4)`, inputs `Uniform(8)`. One thread; the files take turns; median and the 10th and
90th percentile of 60 rounds, of which each counts the last of 3 runs.

Example:
    PYTHONPATH=. python benchmarks/stock_files.py
"""

from __future__ import annotations

import pathlib
import sys
import tempfile
import time

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter

import kerasbits as kb
import tflite_export

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))
from networks import resnet20

FILES = {
    "stock": {},
    "stock, narrowest 4": {"narrowest": 4},
    "stock, narrowest 8": {"narrowest": 8},
    "stock, int8": {"activations": "int8"},
}


def files() -> dict[str, bytes]:
    """The float file and the stock ones."""
    keras.utils.set_random_seed(0)
    model = resnet20()
    x = np.random.default_rng(0).random((16, 32, 32, 3)).astype(np.float32)
    q = kb.quantize_model(model, kb.Uniform(4), kb.Uniform(8))
    kb.calibrate(q, x)
    kb.freeze(q)
    found = {"float": tflite_export.float_tflite(model)}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "m.tflite")
        for name, options in FILES.items():
            tflite_export.export(q, path, profile="stock", sample=x[:4], **options)
            found[name] = path.read_bytes()
    return found


def main() -> None:
    """Print a line for each file."""
    data = files()
    runners = {name: Interpreter(model_content=d, num_threads=1) for name, d in data.items()}
    for runner in runners.values():
        runner.allocate_tensors()
    times: dict[str, list[float]] = {name: [] for name in data}
    for _ in range(60):
        for name, runner in runners.items():
            for _ in range(3):
                start = time.perf_counter()
                runner.invoke()
                took = time.perf_counter() - start
            times[name].append(1e3 * took)
    for name, d in data.items():
        low, middle, high = np.percentile(times[name], [10, 50, 90])
        print(f"{name:20} {len(d):>10,} bytes {middle:7.2f} ms ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
