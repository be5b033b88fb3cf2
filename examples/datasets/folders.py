"""Folders that users name, and files in them."""

from __future__ import annotations

import pathlib


def existing_folder(name: str, data_dir: str | None) -> pathlib.Path:
    """The folder of data set `name`.

    Raises:
        ValueError: none was named.
        FileNotFoundError: there is no such folder.
    """
    if data_dir is None:
        raise ValueError(f"data set '{name}': expected a folder, got none; name it with --data_dir")
    folder = pathlib.Path(data_dir)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"data set '{name}': expected a folder, found none at '{data_dir}'; check --data_dir"
        )
    return folder


def expect_file(path: pathlib.Path) -> None:
    """Refuse what is no regular file, as a pipe, which would be waited for.

    Raises:
        ValueError: another kind of file, a folder, or a link that leads nowhere.
    """
    if not path.is_file():
        raise ValueError(f"file '{path}': expected a regular file")
