"""Sources: images and labels with random access; and how one is split."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

IN_MEMORY = 2**30
"""Bytes of pixels of a part up to which they are kept in memory."""

Shape = tuple[int, int, int]
"""Height, width, channels of an image."""


class Source(Protocol):
    """Images that are made when they are asked for, and their labels.

    Attributes:
        labels: (n,) int32.
        shape: of every image, (h, w, c).
    """

    labels: np.ndarray
    shape: Shape

    def __len__(self) -> int:
        """Number of images."""

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images at `indices`: (len(indices), h, w, c) float32 in [0, 1]."""


class Arrays:
    """A source in memory.

    Args:
        values: (n, h, w, c) numbers from 0 to `white`, of any type.
        labels: (n,) whole numbers.
        white: the value of a white pixel.
    """

    def __init__(self, values: np.ndarray, labels: np.ndarray, white: float = 255):
        self.labels = np.asarray(labels, np.int32)
        self.shape = values.shape[1:]
        self._values, self._white = values, np.float32(white)

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images at `indices`, float32 in [0, 1]."""
        return self._values[np.asarray(indices, np.int64)].astype(np.float32) / self._white


class Lazy:
    """A source that makes each image when it is asked for.

    Args:
        pixels: gives the image at an index, `shape` uint8; called on several threads.
        labels: (n,) int32.
        shape: of every image.
    """

    def __init__(self, pixels: Callable[[int], np.ndarray], labels: np.ndarray, shape: Shape):
        self.pixels, self.labels, self.shape = pixels, labels, shape

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images at `indices`, float32 in [0, 1]."""
        out = np.empty((len(indices), *self.shape), np.float32)
        for image, index in zip(out, indices, strict=True):
            image[:] = self.pixels(int(index))
        return out / np.float32(255)


class Subset:
    """Some images of another source, in the order of `indices`."""

    def __init__(self, source: Source, indices: np.ndarray):
        self.labels = source.labels[indices]
        self.shape = source.shape
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images at `indices` of this subset, float32 in [0, 1]."""
        return self._source.images(self._indices[np.asarray(indices, np.int64)])


def in_memory_if_small(source: Lazy, most_bytes: int = IN_MEMORY) -> Source:
    """The same images, made once and for all if they fit into `most_bytes`.

    Epochs are faster then, and a damaged image is found at once.
    """
    shape = (len(source), *source.shape)
    if math.prod(shape) > most_bytes:
        return source
    pixels = np.empty(shape, np.uint8)
    with ThreadPoolExecutor() as pool:
        for index, image in enumerate(pool.map(source.pixels, range(len(source)))):
            pixels[index] = image
    return Arrays(pixels, source.labels)


def everything(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """All images, (n, h, w, c) float32, and labels, (n,) int32, of a source."""
    return source.images(np.arange(len(source))), source.labels


def split(source: Source, share: float, seed: int) -> tuple[Source, Source]:
    """Two parts of a source, the second with floor(share * n) images.

    Each class gives its share, up to rounding. Which images it gives depends on `seed` alone.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(source))
    by_class = shuffled[np.argsort(source.labels[shuffled], kind="stable")]
    # Where i * share passes a whole number: evenly spread, so classes give in proportion.
    passed = np.floor(np.arange(len(source) + 1) * share)
    taken = np.diff(passed) > 0
    kept_part, taken_part = np.sort(by_class[~taken]), np.sort(by_class[taken])
    return Subset(source, kept_part), Subset(source, taken_part)
