"""A file that appears under its name only when it is complete."""

from __future__ import annotations

import contextlib
import errno
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
        with _naming(self.target), self.path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Give it the name of the target, in one step; an older file is replaced."""
        with _naming(self.target):
            os.replace(self.path, self.target)


@contextlib.contextmanager
def _naming(target: pathlib.Path) -> Iterator[None]:
    """Errors of the system name the target, not a temporary file that nobody has asked for."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from None


@contextlib.contextmanager
def unfinished(target: pathlib.Path) -> Iterator[UnfinishedFile]:
    """A temporary file that disappears unless it is finished. Fails early if it cannot be made.

    Raises:
        OSError: a folder that is missing or cannot be written, a folder in the file's place.
    """
    if not target.parent.is_dir():
        raise FileNotFoundError(f"folder '{target.parent}': expected an existing folder")
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    ending = f".{MARK}-{secrets.token_hex(6)}{target.suffix}"
    # With a name as long as systems allow the one of the temporary file must not be longer.
    stem = os.fsencode(target.stem)[: 254 - len(os.fsencode(ending))].decode(errors="ignore")
    path = target.with_name(f".{stem}{ending}")
    with _naming(target):
        path.open("xb").close()  # with the permissions that any new file gets
    try:
        yield UnfinishedFile(path, target)
    finally:
        path.unlink(missing_ok=True)
