"""Images in TFRecord files."""

from __future__ import annotations

import dataclasses
import io
import math
import pathlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from datasets.augment import Augment
from datasets.folders import existing_folder, expect_file
from datasets.parts import Parts
from datasets.pictures import Header, Size, common_shape, decode, read_header, shaped
from datasets.source import Lazy, Shape, Source, in_memory_if_small
from datasets.tfrecord import Record, records

PREFIXES = {"train": "train", "validation": "val", "test": "test"}
NAMES_FILE = "labels.txt"

LABEL, ENCODED, RAW, SHAPE = "image/class/label", "image/encoded", "image/raw", "image/shape"
"""Features of an example."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """An example that was looked at.

    Args:
        record: where it is.
        label: its class.
        header: of its image.
    """

    record: Record
    label: int
    header: Header


def record_folder(data_dir: str | None, image_size: Size | None = None) -> Parts:
    """Images of a folder with `train*.tfrecord`, and perhaps `val*` and `test*`.

    Each record is a `tf.train.Example` with the features `image/class/label`, one number that
    counts from 0, and `image/encoded`, the bytes of an image file; or, in place of it, `image/raw`,
    bytes of pixels row by row, and `image/shape`, height, width and 1 or 3 channels. A file
    `labels.txt` may give the names of the classes, one a line. What may follow `.tfrecord` is free,
    as in `train.tfrecord-00000-of-00008`.

    Every record is read and checked once; then images are read when they are needed.

    Args:
        data_dir: the folder.
        image_size: height and width to resize to; None expects images of one size.

    Raises:
        FileNotFoundError: no such folder, or no training records in it.
        ValueError: a damaged file, an example without these features, a class without images, a
            label out of range, or images of several sizes without `image_size`.
    """
    folder = existing_folder("tfrecords", data_dir)
    found = _find(folder)
    names = _names(folder, found["train"])
    entries = [entry for part in found.values() for entry in part]
    for entry in entries:
        if entry.label >= len(names):
            raise ValueError(
                f"{entry.record}: expected a label from 0 to {len(names) - 1}, got {entry.label}"
            )
    shape = common_shape(((str(e.record), e.header) for e in entries), image_size)
    sources = {part: _source(part_entries, shape) for part, part_entries in found.items()}
    return Parts(**sources, names=names, augment=Augment(min(shape[:2]) // 8, flip=True))


def _find(folder: pathlib.Path) -> dict[str, list[Entry]]:
    files = {part: sorted(folder.glob(f"{prefix}*.tfrecord*")) for part, prefix in PREFIXES.items()}
    if not files["train"]:
        raise FileNotFoundError(
            f"folder '{folder}': expected files train*.tfrecord, found none; check --data_dir"
        )
    found = {}
    with ThreadPoolExecutor() as pool:
        for part, paths in files.items():
            if paths:
                found[part] = [e for entries in pool.map(_entries, paths) for e in entries]
                if not found[part]:
                    raise ValueError(f"file '{paths[0]}': expected records, found none")
    return found


def _entries(path: pathlib.Path) -> list[Entry]:
    expect_file(path)
    return [_entry(record, data) for record, data in records(path)]


def _entry(record: Record, data: bytes) -> Entry:
    features = _features(record, data)
    label = _one(record, features, LABEL, "int64_list")
    if label < 0:
        raise ValueError(f"{record}: expected a label of at least 0, got {label}")
    return Entry(record, label, _header(record, features))


def _features(record: Record, data: bytes):
    """The features of a `tf.train.Example`, by name."""
    try:
        import tensorflow as tf
        from google.protobuf.message import DecodeError
    except ImportError:
        raise ValueError("data set 'tfrecords': expected TensorFlow, found none") from None
    try:
        return tf.train.Example.FromString(data).features.feature
    except DecodeError as error:
        raise ValueError(f"{record}: expected a tf.train.Example ({error})") from None


def _one(record: Record, features, name: str, kind: str):
    values = getattr(features[name], kind).value if name in features else ()
    if len(values) != 1:
        raise ValueError(
            f"{record}: expected one value in the {kind} of feature '{name}', "
            f"got {len(values)}; features are {', '.join(sorted(features))}"
        )
    return values[0]


def _header(record: Record, features) -> Header:
    if ENCODED in features or RAW not in features:
        encoded = _one(record, features, ENCODED, "bytes_list")
        return read_header(io.BytesIO(encoded), str(record))
    shape = tuple(features[SHAPE].int64_list.value) if SHAPE in features else ()
    if len(shape) != 3 or min(shape) < 1 or shape[2] not in (1, 3):
        raise ValueError(
            f"{record}: expected height, width, and 1 or 3 channels in feature '{SHAPE}', "
            f"got {shape}"
        )
    raw = _one(record, features, RAW, "bytes_list")
    if len(raw) != math.prod(shape):
        raise ValueError(
            f"{record}: expected {math.prod(shape)} bytes in feature '{RAW}' for shape {shape}, "
            f"got {len(raw)}"
        )
    return Header(shape[:2], shape[2])


def _names(folder: pathlib.Path, train: list[Entry]) -> tuple[str, ...]:
    path = folder / NAMES_FILE
    if path.is_file():
        names = path.read_text(encoding="utf-8-sig", errors="replace").strip().splitlines()
    else:
        names = [str(label) for label in _counted(folder, {entry.label for entry in train})]
    if len(names) < 2:
        where = f"file '{path}'" if path.is_file() else f"folder '{folder}'"
        raise ValueError(f"{where}: expected at least 2 classes, got {len(names)}")
    return tuple(names)


def _counted(folder: pathlib.Path, labels: set[int]) -> range:
    missing = next(n for n in range(len(labels) + 1) if n not in labels)
    if missing != len(labels):
        raise ValueError(
            f"folder '{folder}': expected training images of each class, got none with label "
            f"{missing}; labels count from 0 and {LABEL} goes up to {max(labels)}"
        )
    return range(len(labels))


def _source(entries: list[Entry], shape: Shape) -> Source:
    found = [entry.record for entry in entries]

    def pixels(index: int) -> np.ndarray:
        record = found[index]
        features = _features(record, record.read())
        header = _header(record, features)
        if ENCODED in features:
            image = decode(io.BytesIO(features[ENCODED].bytes_list.value[0]), str(record))
        else:
            raw = np.frombuffer(features[RAW].bytes_list.value[0], np.uint8)
            image = raw.reshape(*header.size, header.channels)
        return shaped(image, shape)

    labels = np.array([entry.label for entry in entries], np.int32)
    return in_memory_if_small(Lazy(pixels, labels, shape))
