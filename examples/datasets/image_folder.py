"""Images in folders, one folder a class."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from datasets.augment import Augment
from datasets.folders import existing_folder, expect_file
from datasets.parts import Parts
from datasets.pictures import Header, Size, common_shape, decode, read_header, shaped
from datasets.source import Lazy, Shape, Source, in_memory_if_small

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm")
"""Of images; other files are passed over, hidden ones too."""

Files = tuple[list[pathlib.Path], np.ndarray]
"""Paths of images and their labels."""


def image_folder(data_dir: str | None, image_size: Size | None = None) -> Parts:
    """Images of a folder with a subfolder for each class, at any depth below it.

    Or of a folder with `train/`, and perhaps `validation/` (or `val/`) and `test/`, that are such
    folders with the same classes. Classes are numbered in the order of their names.

    Args:
        data_dir: the folder.
        image_size: height and width to resize to; None expects images of one size.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no classes, a class without images, a file that is not an image, or images of
            several sizes without `image_size`.
    """
    root = existing_folder("images", data_dir)
    divided = (root / "train").is_dir() and bool(_subfolders(root / "train"))
    top = root / "train" if divided else root
    names = tuple(path.name for path in _subfolders(top))
    if len(names) < 2:
        raise ValueError(
            f"folder '{top}': expected a subfolder for each of at least 2 classes, got {len(names)}"
        )
    files = {"train": _files(top, names)}
    for part, folder in (("validation", "val"), ("validation", "validation"), ("test", "test")):
        if divided and (root / folder).is_dir():
            files[part] = _files(root / folder, names)
    paths = [path for part, _ in files.values() for path in part]
    shape = common_shape(((f"file '{path}'", _header(path)) for path in paths), image_size)
    sources = {part: _source(*found, shape) for part, found in files.items()}
    return Parts(**sources, names=names, augment=Augment(min(shape[:2]) // 8, flip=True))


def _subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    found = (path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    return sorted(found, key=lambda path: path.name)


def _files(folder: pathlib.Path, names: tuple[str, ...]) -> Files:
    paths, labels = [], []
    for subfolder in _subfolders(folder):
        if subfolder.name not in names:
            raise ValueError(
                f"folder '{subfolder}': expected a class of the training images, "
                f"{', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
            )
        found = _images_below(subfolder)
        if not found:
            raise ValueError(
                f"folder '{subfolder}': expected images ({' '.join(SUFFIXES)}), found none"
            )
        paths += found
        labels += [names.index(subfolder.name)] * len(found)
    if not paths:
        raise ValueError(f"folder '{folder}': expected a subfolder for each class, found none")
    return paths, np.array(labels, np.int32)


def _images_below(folder: pathlib.Path) -> list[pathlib.Path]:
    found = []
    for parent, _, files in os.walk(folder, onerror=_raise):
        images = (f for f in files if f.lower().endswith(SUFFIXES) and f[0] != ".")
        found += [pathlib.Path(parent, file) for file in images]
    return sorted(found)


def _raise(error: OSError) -> None:
    """What `os.walk` does with errors, which it would pass over."""
    raise error


def _header(path: pathlib.Path) -> Header:
    expect_file(path)
    with path.open("rb") as file:
        return read_header(file, f"file '{path}'")


def _source(paths: list[pathlib.Path], labels: np.ndarray, shape: Shape) -> Source:
    def pixels(index: int) -> np.ndarray:
        with paths[index].open("rb") as file:
            return shaped(decode(file, f"file '{paths[index]}'"), shape)

    return in_memory_if_small(Lazy(pixels, labels, shape))
