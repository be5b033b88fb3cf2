"""The folder of a run: made, tried out and locked before any training."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

MODEL, FLOAT_MODEL = "model.keras", "float.keras"
"""The trained model, and the float model it was made from."""

LOCK = ".lock"


def make_writable(folder: pathlib.Path) -> None:
    """Make a folder unless it is there, and make sure that files can be written to it.

    Raises:
        OSError: they cannot; it names the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".trial-"):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Keep other runs out of a folder. The lock ends with the process, however that ends.

    Raises:
        ValueError: another process trains there.
    """
    with (folder / LOCK).open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"model_dir '{folder}': expected no other process to train there, got one; "
                    "wait for it, or use another folder"
                ) from None
        yield


def save_model(model: Any, path: pathlib.Path) -> None:
    """Save a Keras model to a file that has its name only when it is whole."""
    temporary = path.with_name(f".unfinished-{path.name}")
    model.save(temporary)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
