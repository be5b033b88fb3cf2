"""Where the benchmarks keep what they build and what they found."""

from __future__ import annotations

import pathlib

ROOT = pathlib.Path(__file__).parents[1]
BUILT = ROOT / ".bench"
"""Files to time. Those of other projects are built once; `make clean` removes them."""

STOCK = BUILT / "stock"
BLOBS = BUILT / "blobs"
NETWORKS = BUILT / "networks"
LARQ_FILES = BUILT / "larq"
PEERS = ROOT / ".peers"
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs" / "pictures"


def stock_file(key: str, form: str) -> pathlib.Path:
    """A stock file of one layer; `form` is "int8" or "float"."""
    return STOCK / f"{key}-{form}.tflite"
