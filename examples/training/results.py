"""The result of a run as one line of JSON, the last one that a program prints."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import keras

import kerasbits as kb
from training.settings import Settings

PACKAGES = (
    "keras",
    "tf_keras",
    "tensorflow-model-optimization",
    "tensorflow",
    "jax",
    "ai-edge-litert",
    "numpy",
)
"""Whose versions a result names, those that are installed."""

NAMES = {"tensorflow": ("tensorflow", "tensorflow-cpu")}
"""Packages that come under several names."""


def json_line(
    settings: Settings,
    *,
    program: str = "train",
    accuracy: Mapping[str, float | None] | None = None,
    report: kb.Report | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    files: Mapping[str, str | os.PathLike] | None = None,
    weights_sha256: str | None = None,
) -> str:
    """What a run was, what it found and what it wrote.

    Args:
        settings: of the run; mode, method and its options, network, data set and seed are named.
        program: its name.
        accuracy: parts of the test images, 0 to 1, by "float", "quantized" and "exported".
        report: of the quantized model: bits of each layer, averages, bytes, bit operations.
        steps: of training, over all phases and over all times the run was resumed; None (null) if
            nothing was trained.
        seconds: likewise.
        files: paths by name, as {"model": ..., "export": ...}; of those that exist, size and
            checksum are told.
        weights_sha256: checksum of all variables of the quantized model.

    Returns:
        Strict JSON without a line break. A number that is not finite is null.

    Example:
        >>> line = json_line(Settings("runs/1"), accuracy={"quantized": 0.91}, steps=400)
        >>> json.loads(line)["accuracy"]["quantized"]
        0.91
    """
    found = {
        "program": program,
        **{name: getattr(settings, name) for name in ("mode", "method", "method_options")},
        **{name: getattr(settings, name) for name in ("network", "dataset", "seed", "distribute")},
        "accuracy": dict(accuracy or {}),
        **({} if report is None else _costs(report)),
        "weights_sha256": weights_sha256,
        "steps": steps,
        "seconds": None if seconds is None else round(float(seconds), 1),
        "model_dir": settings.model_dir,
        "files": {name: _file(path) for name, path in (files or {}).items()},
        "versions": versions(),
    }
    return json.dumps(_plain(found), allow_nan=False)


def versions() -> dict[str, str]:
    """Versions of Python, kerasbits, and of the packages that matter to a result."""
    found = {"python": platform.python_version(), "kerasbits": kb.__version__}
    for package in PACKAGES:
        for name in NAMES.get(package, (package,)):
            try:
                found[package] = importlib.metadata.version(name)
                break
            except importlib.metadata.PackageNotFoundError:
                continue
    return {**found, "backend": keras.backend.backend()}


def _costs(report: kb.Report) -> dict[str, Any]:
    return {
        "average_bits": report.average_bits,
        "bits": {row.name: row.bits for row in report.rows},
        "input_bits": {row.name: row.input_bits for row in report.rows},
        "weight_bytes": report.weight_bytes,
        "float_weight_bytes": report.float_bytes,
        "bops": report.bops,
    }


def _file(path: str | os.PathLike) -> dict[str, Any]:
    where = pathlib.Path(path)
    if not where.is_file():
        return {"path": os.fspath(path), "bytes": None, "sha256": None}
    data = where.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return {"path": os.fspath(path), "bytes": len(data), "sha256": digest}


def _plain(value: Any) -> Any:
    """In the types of JSON: no NumPy, no infinity."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    value = value.item() if hasattr(value, "item") else value  # of NumPy
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return float(value) if math.isfinite(value) else None
