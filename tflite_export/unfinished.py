"""A file that appears under its name only when it is complete."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
from collections.abc import Iterator

MARK = "unfinished"
"""In the names of temporary files: `.m.unfinished-0f3a9c51d2e8.tflite`. If an export is killed,
one may stay behind; nothing reads it, and it can be deleted."""


class UnfinishedFile:
    """A temporary file beside its target, with the same suffix."""

    def __init__(self, path: pathlib.Path, target: pathlib.Path):
        self.path, self.target = path, target

    def write(self, data: bytes) -> None:
        """Replace the content, down to the disk: a name must never stand before its bytes."""
        with self.path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Give it the name of the target, in one step; an older file is replaced."""
        os.replace(self.path, self.target)


@contextlib.contextmanager
def unfinished(target: pathlib.Path) -> Iterator[UnfinishedFile]:
    """A temporary file that disappears unless it is finished. Fails early if it cannot be made.

    Raises:
        OSError: a folder that is missing or cannot be written.
    """
    if not target.parent.is_dir():
        raise FileNotFoundError(f"folder '{target.parent}': expected an existing folder")
    name = f".{target.stem}.{MARK}-{secrets.token_hex(6)}{target.suffix}"
    path = target.with_name(name)
    path.open("xb").close()  # with the permissions that any new file gets
    try:
        yield UnfinishedFile(path, target)
    finally:
        path.unlink(missing_ok=True)
