"""Fashion-MNIST, from files on this machine or through Keras."""

from __future__ import annotations

import gzip
import pathlib
import zlib

import numpy as np

from datasets.augment import Augment
from datasets.parts import Parts
from datasets.pictures import Size, resize_bytes
from datasets.source import Arrays

DEBIAN_FOLDER = pathlib.Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts the IDX files."""

FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}

CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

HOW_TO_GET = (
    "expected Fashion-MNIST, found none. Either install Debian's package "
    "(apt-get install dataset-fashion-mnist), or put the four files "
    f"{', '.join(f for pair in FILES.values() for f in pair)} into a folder and name it with "
    "--data_dir, or run once with internet access so that Keras can download them"
)


def fashion_mnist(data_dir: str | None = None, image_size: Size | None = None) -> Parts:
    """60,000 and 10,000 images of clothes, 28 x 28 x 1, in ten classes.

    Args:
        data_dir: where the IDX files are; None looks in Debian's folder, then asks Keras.
        image_size: height and width to resize to.

    Raises:
        FileNotFoundError: no data; the message says how to get it.
        ValueError: a file that is not in the IDX format, or not of Fashion-MNIST.
    """
    where = pathlib.Path(data_dir) if data_dir else DEBIAN_FOLDER
    if all((where / name).is_file() for pair in FILES.values() for name in pair):
        parts = {s: _read_pair(*(where / name for name in FILES[s])) for s in FILES}
    elif data_dir:
        raise FileNotFoundError(f"folder '{data_dir}': {HOW_TO_GET}")
    else:
        parts = _from_keras()
    train, test = (
        Arrays(resize_bytes(images[..., None], image_size), labels)
        for images, labels in (parts["train"], parts["test"])
    )
    return Parts(train, test=test, names=CLASSES, augment=Augment(pad=2, flip=True))


def read_idx(path: pathlib.Path) -> np.ndarray:
    """The array in a gzipped IDX file of unsigned bytes.

    Raises:
        ValueError: another format, or a damaged file.
    """
    try:
        with gzip.open(path) as file:
            data = file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"file '{path}': expected a gzipped IDX file ({error})") from None
    rank = data[3] if len(data) > 3 else 0
    if data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * rank:
        raise ValueError(f"file '{path}': expected an IDX file of bytes, got {data[:4]!r}")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", rank, 4))
    values = np.frombuffer(data, np.uint8, -1, 4 + 4 * rank)
    count = 1
    for size in shape:
        count *= size
    if values.size != count:
        raise ValueError(f"file '{path}': expected {shape} values, got {values.size}")
    return values.reshape(shape)


def _read_pair(images_path: pathlib.Path, labels_path: pathlib.Path):
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or labels.shape != images.shape[:1] or not images.size:
        raise ValueError(
            f"file '{labels_path}': expected a label for each image of '{images_path.name}', "
            f"got {labels.shape} labels for {images.shape} images"
        )
    if labels.max() >= len(CLASSES):
        raise ValueError(
            f"file '{labels_path}': expected labels from 0 to {len(CLASSES) - 1}, "
            f"got {labels.max()}"
        )
    return images, labels


def _from_keras():
    import keras

    try:
        train, test = keras.datasets.fashion_mnist.load_data()
    except Exception as error:  # whatever a missing network raises
        raise FileNotFoundError(f"{HOW_TO_GET} ({error})") from None
    return {"train": train, "test": test}
