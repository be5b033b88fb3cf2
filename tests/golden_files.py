"""Where the reference vectors are: `tests/golden`, or the folder in KERASBITS_GOLDEN_DIR."""

import os
import pathlib

import numpy as np

HERE = pathlib.Path(__file__).parent
FOLDER = pathlib.Path(os.environ.get("KERASBITS_GOLDEN_DIR") or HERE / "golden")


def load(method: str) -> dict[str, np.ndarray]:
    """All arrays of one method's file, by key."""
    with np.load(FOLDER / f"{method}.npz") as file:
        return {key: file[key] for key in file.files}


def cases(arrays: dict[str, np.ndarray], prefix: str, field: str) -> list[str]:
    """Names of the cases that start with `prefix` and have an array `<case>_<field>`."""
    end = f"_{field}"
    return sorted(k[: -len(end)] for k in arrays if k.startswith(prefix) and k.endswith(end))
