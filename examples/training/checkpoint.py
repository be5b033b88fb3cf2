"""Checkpoints: all variables and the place in training, in one file that is whole or not there."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

VERSION = 1
META = "meta"
NAME = re.compile(r"checkpoint-(\d{10})\.npz")
NUMBERED = re.compile(r"(?<=^seed_generator)_\d+")
"""What Keras adds to names of random numbers, counting the models that a process has made."""

UNFINISHED = ".checkpoint.unfinished"
"""Where a checkpoint is written before it gets its name. One that was left by a killed run is
overwritten by the next checkpoint."""

Arrays = dict[str, np.ndarray]


class DamagedError(ValueError):
    """A file that is no whole checkpoint."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The state of a run after some steps.

    Args:
        step: steps done, over all phases.
        place: what else says where the run is: plain values that JSON can hold.
        arrays: values of variables by name.
    """

    step: int
    place: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


def save(folder: pathlib.Path, checkpoint: Checkpoint, keep: int = 2) -> pathlib.Path:
    """Write `folder/checkpoint-<step>.npz`, then delete all but this and the `keep - 1` before.

    The bytes are on the disk before the file gets its name, so whenever the process or the machine
    stops, each file that has the name of a checkpoint is whole.

    Raises:
        OSError: the folder cannot be written.
    """
    path = folder / f"checkpoint-{checkpoint.step:010d}.npz"
    write_whole(path, to_bytes(checkpoint), folder / UNFINISHED)
    # Newer ones are damaged, or the run would have gone on from them.
    newer = [p for p in files(folder) if p.name > path.name]
    for old in [*newer, *files(folder)[len(newer) + keep :]]:
        old.unlink(missing_ok=True)
    return path


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """The bytes of a checkpoint's file; `from_bytes` reads them."""
    meta = {"version": VERSION, "step": checkpoint.step, "place": dict(checkpoint.place)}
    meta["sha256"] = digest(checkpoint.arrays, json.dumps(meta, sort_keys=True))
    data = io.BytesIO()
    np.savez(data, **{META: np.array(json.dumps(meta, sort_keys=True)), **checkpoint.arrays})
    return data.getvalue()


def write_whole(path: pathlib.Path, data: bytes, temporary: pathlib.Path | None = None) -> None:
    """Write a file that has its name only once its bytes are on the disk."""
    temporary = temporary or path.with_name(f".{path.name}.unfinished")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    _sync_folder(path.parent)


def _sync_folder(folder: pathlib.Path) -> None:
    """Bring new names to the disk, where the system has a way to."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems
            raise
    finally:
        os.close(number)


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The checkpoints of a folder, newest first."""
    found = [p for p in folder.iterdir() if NAME.fullmatch(p.name)] if folder.is_dir() else []
    return sorted(found, key=lambda p: p.name, reverse=True)


def load_newest(
    folder: pathlib.Path, warn: Callable[[str], None]
) -> tuple[pathlib.Path, Checkpoint] | None:
    """The newest checkpoint that is whole, with its path; None in a folder without checkpoints.

    Args:
        folder: of the checkpoints.
        warn: told of each damaged checkpoint that was passed over.

    Raises:
        ValueError: there are checkpoints, and all are damaged: to start anew must be a decision.
    """
    found = files(folder)
    for path in found:
        try:
            return path, load(path)
        except DamagedError as error:
            warn(str(error))
    if found:
        raise ValueError(
            f"folder '{folder}': expected a checkpoint that is whole, got damaged ones only; "
            "delete them to start anew"
        )
    return None


def load(path: pathlib.Path) -> Checkpoint:
    """A checkpoint.

    Raises:
        DamagedError: the file is not what `save` wrote.
        OSError: it cannot be read.
        ValueError: it was written by another version.
    """
    return from_bytes(path.read_bytes(), f"checkpoint '{path}'")


def from_bytes(data: bytes, where: str) -> Checkpoint:
    """The checkpoint in the bytes of its file.

    Args:
        data: the bytes.
        where: names their source in errors.

    Raises:
        DamagedError, ValueError: as `load`.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(str(arrays.pop(META)))
        expected = meta.pop("sha256")
        whole = digest(arrays, json.dumps(meta, sort_keys=True)) == expected
        version, step, place = meta["version"], meta["step"], meta["place"]
    except Exception as error:  # whatever damaged bytes lead zip, NumPy and JSON to
        reason = str(error) or type(error).__name__
        raise DamagedError(f"{where}: damaged ({reason})") from None
    if not whole:
        raise DamagedError(f"{where}: damaged (its checksum is wrong)")
    if version != VERSION:
        raise ValueError(f"{where}: expected version {VERSION}, got {version}")
    return Checkpoint(step, place, arrays)


def digest(arrays: Mapping[str, np.ndarray], text: str = "") -> str:
    """SHA-256 of names, types, shapes and values, and of `text`."""
    found = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        found.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def digest_of(variables: Iterable) -> str:
    """SHA-256 of the values of variables, in their order. A model that is loaded from a file may
    name them differently."""
    values = values_of(variables, "").values()
    return digest({f"{number:08d}": array for number, array in enumerate(values)})


def values_of(variables: Iterable, prefix: str) -> Arrays:
    """Copies of variables by `prefix/path`. Paths that occur again get `#2`, `#3`, ..."""
    return {name: np.array(v.numpy()) for name, v in _named(variables, prefix).items()}


def restore(variables: Iterable, prefix: str, arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Assign the values that `values_of` took from equal variables.

    Nothing is assigned unless every name, shape and type fits.

    Args:
        variables: to be assigned.
        prefix: as in `values_of`.
        arrays: the values; those of other prefixes are left alone.
        where: names their source in errors.

    Raises:
        ValueError: variables that differ from those that were taken, naming the first.
    """
    wanted = _named(variables, prefix)
    found = {n: a for n, a in arrays.items() if n.startswith(f"{prefix}/")}
    for name in [*wanted, *found]:
        if name not in found or name not in wanted:
            got = "no value for it" if name in wanted else "a value, but no such variable"
            raise ValueError(f"{where}: expected the variable '{name}', got {got}")
        expected, got = _kind(wanted[name]), (found[name].shape, str(found[name].dtype))
        if expected != got:
            raise ValueError(f"{where}: expected '{name}' to be {_say(expected)}, got {_say(got)}")
    for name, variable in wanted.items():
        variable.assign(found[name])


def _named(variables: Iterable, prefix: str) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for variable in variables:
        # Keras 3 has paths; the variables of tf_keras have full names.
        path = f"{prefix}/{NUMBERED.sub('', getattr(variable, 'path', None) or variable.name)}"
        count = 1
        name = path
        while name in named:
            count += 1
            name = f"{path}#{count}"
        named[name] = variable
    return named


def _kind(variable) -> tuple[tuple[int, ...], str]:
    dtype = variable.dtype
    return tuple(variable.shape), dtype if isinstance(dtype, str) else dtype.name


def _say(kind: tuple[tuple[int, ...], str]) -> str:
    return f"{kind[1]}{list(kind[0])}"
