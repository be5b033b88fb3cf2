"""Fashion-MNIST, from files on this machine or through Keras."""

from __future__ import annotations

import gzip
import pathlib

import numpy as np

DEBIAN_FOLDER = pathlib.Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts the IDX files."""

FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}

HOW_TO_GET = (
    "expected Fashion-MNIST, found none. Either install Debian's package "
    "(apt-get install dataset-fashion-mnist), or put the four files "
    f"{', '.join(f for pair in FILES.values() for f in pair)} into a folder and name it with "
    "--data_dir, or run once with internet access so that Keras can download them"
)

Split = tuple[np.ndarray, np.ndarray]


def fashion_mnist(folder: str | None = None) -> tuple[Split, Split]:
    """Training and test images, (n, 28, 28, 1) float32 in [0, 1], with labels, (n,) int64.

    Args:
        folder: where the IDX files are; None looks in Debian's folder, then asks Keras.

    Raises:
        FileNotFoundError: no data; the message says how to get it.
        ValueError: a file that is not in the IDX format.
    """
    where = pathlib.Path(folder) if folder else DEBIAN_FOLDER
    if all((where / name).is_file() for pair in FILES.values() for name in pair):
        arrays = {s: [read_idx(where / name) for name in FILES[s]] for s in FILES}
    elif folder:
        raise FileNotFoundError(f"folder '{folder}': {HOW_TO_GET}")
    else:
        arrays = _from_keras()
    return _scaled(*arrays["train"]), _scaled(*arrays["test"])


def read_idx(path: pathlib.Path) -> np.ndarray:
    """The array in a gzipped IDX file of unsigned bytes."""
    with gzip.open(path) as file:
        data = file.read()
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError(f"file '{path}': expected an IDX file of bytes, got {data[:4]!r}")
    rank = data[3]
    shape = np.frombuffer(data, ">u4", rank, 4)
    values = np.frombuffer(data, np.uint8, -1, 4 + 4 * rank)
    if values.size != int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"file '{path}': expected {tuple(shape)} values, got {values.size}")
    return values.reshape(tuple(int(n) for n in shape))


def _from_keras() -> dict[str, Split]:
    import keras

    try:
        train, test = keras.datasets.fashion_mnist.load_data()
    except Exception as error:  # whatever a missing network raises
        raise FileNotFoundError(f"{HOW_TO_GET} ({error})") from None
    return {"train": train, "test": test}


def _scaled(images: np.ndarray, labels: np.ndarray) -> Split:
    return images[..., None].astype(np.float32) / 255, labels.astype(np.int64)
