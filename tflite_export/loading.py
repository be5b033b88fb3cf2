"""Models of either Keras, as the exporter takes them: Keras 3 models.

Those of tf_keras become their Keras 3 twins. What that needs is imported only then.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import zipfile
from typing import Any

import keras


def in_keras3(model: Any) -> keras.Model:
    """The model itself, or the Keras 3 twin of a tf_keras model.

    Raises:
        ValueError: no model of either kind, or a tf_keras model that has no twin.
        ImportError: a tf_keras model, and the packages of `kerasbits[tfmot]` are missing.
    """
    if isinstance(model, keras.Model):
        return model
    if not any(kind.__module__.partition(".")[0] == "tf_keras" for kind in type(model).__mro__):
        raise ValueError(
            f"export: expected a Keras 3 or tf_keras model, got {type(model).__name__}"
        )
    from kerasbits.tfmot.keras3 import to_keras3

    return to_keras3(model)


def load(path: str) -> keras.Model:
    """A saved model of either Keras, as a Keras 3 model.

    Args:
        path: a .keras or .h5 file, or the folder of a SavedModel of tf_keras.

    Raises:
        ValueError: no such file, one that Keras cannot load, or a tf_keras model without a twin.
    """
    found = pathlib.Path(path)
    folder = (found / "saved_model.pb").is_file()
    if not found.is_file() and not folder:
        raise ValueError(
            f"model '{path}': expected a .keras or .h5 file or the folder of a SavedModel, got no "
            "file"
        )
    try:
        of_tf_keras = folder or keras_version(found).startswith("2.")
        loader = _load_of_tf_keras if of_tf_keras else keras.models.load_model
        model = loader(path, compile=False)
    except Exception as error:  # Keras raises whatever the file leads it to
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"model '{path}': Keras cannot load it: {lines[0]}") from error
    return in_keras3(model)


def _load_of_tf_keras(path: str, compile: bool) -> Any:
    from kerasbits.tfmot import load_model

    return load_model(path, compile=compile)


def keras_version(path: pathlib.Path) -> str:
    """The version of Keras that wrote a .keras or .h5 file; empty if it does not say."""
    if zipfile.is_zipfile(path):
        with contextlib.suppress(KeyError, ValueError), zipfile.ZipFile(path) as archive:
            return str(json.loads(archive.read("metadata.json"))["keras_version"])
        return ""
    import h5py

    with contextlib.suppress(OSError, KeyError), h5py.File(path, "r") as file:
        version = file.attrs["keras_version"]
        return version.decode() if isinstance(version, bytes) else str(version)
    return ""
