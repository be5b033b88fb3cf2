"""Settings that are right each for itself but not together."""

from __future__ import annotations

import inspect
import pathlib
from typing import Any

from networks import NETWORKS

from training.values import SettingError, nearest

FREE_FORM = ("images", "tfrecords")
"""Data sets that are wherever the user has them."""


def check_agreement(settings) -> None:
    """Check what two or more settings say together.

    Raises:
        SettingError: they contradict each other; named is the one to change.
    """
    _check_export(settings)
    _check_data(settings)
    _check_network(settings)


def _check_export(s) -> None:
    if s.mode == "export" and s.export is None:
        raise SettingError("export", "expected a file to write, as --mode is 'export', got none")
    if s.profile == "stock" and s.export is not None and not s.export.endswith(".tflite"):
        raise SettingError(
            "export", f"expected a .tflite file for profile 'stock', got {s.export!r}"
        )
    if s.activations == "int8" and s.profile != "stock":
        raise SettingError("activations", f"'int8' needs profile 'stock', got {s.profile!r}")
    if s.export is not None and pathlib.Path(s.export).is_dir():
        raise SettingError("export", f"expected a file to write, got the folder {s.export!r}")


def _check_data(s) -> None:
    if s.dataset in FREE_FORM and s.data_dir is None:
        raise SettingError("data_dir", f"expected the folder of dataset '{s.dataset}', got none")
    if s.early_stopping and not s.validation and s.dataset != "tfrecords":
        raise SettingError(
            "validation", "expected more than 0, as --early_stopping needs it, got 0"
        )


def network_options(network: str) -> dict[str, Any]:
    """What a network of `NETWORKS` takes beside shape, classes and Keras, with the defaults."""
    found = inspect.signature(NETWORKS[network]).parameters.values()
    given = ("input_shape", "classes", "keras")
    return {option.name: option.default for option in found if option.name not in given}


def _check_network(s) -> None:
    known = network_options(s.network)
    for name in s.network_options:
        if name not in known:
            expected = nearest(name, known) if known else "; it has none"
            problem = f"'{s.network}' has no option {name!r}{expected}"
            raise SettingError("network_options", problem)
