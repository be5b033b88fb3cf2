"""Reading and resizing images."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image

from datasets.source import Shape

Size = tuple[int, int]
"""Height and width."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM")
"""That are decoded. Not all that Pillow knows: some start other programs."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What an image says of itself.

    Args:
        size: height and width.
        channels: 1 for gray, 3 for colours.
    """

    size: Size
    channels: int


def read_header(file: BinaryIO, where: str) -> Header:
    """The header of an encoded image, without decoding it.

    Args:
        file: open for reading.
        where: names the image in errors.

    Raises:
        ValueError: not an image.
    """
    with _opened(file, where) as image:
        return Header((image.height, image.width), _channels(image))


def decode(file: BinaryIO, where: str) -> np.ndarray:
    """The pixels of an encoded image: (h, w, 1) if it is gray, else (h, w, 3), uint8.

    Transparency is dropped and the orientation that cameras note is ignored, as Keras does.

    Raises:
        ValueError: not an image, or a damaged one.
    """
    with _opened(file, where) as image:
        if _channels(image) == 3:
            return np.array(image.convert("RGB"))
        if image.mode.startswith("I"):  # 16 bits
            return (np.asarray(image) >> 8).astype(np.uint8)[..., None]
        return np.array(image.convert("L"))[..., None]


def shaped(pixels: np.ndarray, shape: Shape) -> np.ndarray:
    """An image resized to `shape`, (h, w, c) uint8; gray is repeated for colours."""
    resized = resize_bytes(pixels[None], shape[:2])[0]
    return np.repeat(resized, 3, -1) if resized.shape[-1] < shape[-1] else resized


def common_shape(headers: Iterable[tuple[str, Header]], size: Size | None) -> Shape:
    """The shape of all images: `size` or the one that they have, in colours if one of them is.

    Args:
        headers: at least one; with a name for errors.
        size: height and width to resize to; None expects equal ones.

    Raises:
        ValueError: different sizes and no `size`.
    """
    first = None
    channels = 1
    for where, header in headers:
        channels = max(channels, header.channels)
        first = first or (where, header)
        if size is None and header.size != first[1].size:
            raise ValueError(
                f"{where}: expected {_text(first[1].size)} pixels as in {first[0]}, "
                f"got {_text(header.size)}; give image_size to resize all images"
            )
    return (*(size or first[1].size), channels)


def resize(images: np.ndarray, size: Size | None) -> np.ndarray:
    """Images (n, h, w, c) float32 at another size; what becomes smaller is averaged."""
    if size is None or images.shape[1:3] == size:
        return images
    height, width = size
    out = np.empty((len(images), height, width, images.shape[3]), np.float32)
    for image, resized in zip(images, out, strict=True):
        for channel in range(image.shape[-1]):
            plane = Image.fromarray(np.ascontiguousarray(image[..., channel], np.float32))
            resized[..., channel] = plane.resize((width, height), Image.Resampling.BILINEAR)
    return out


def resize_bytes(images: np.ndarray, size: Size | None) -> np.ndarray:
    """The same for bytes, rounded to bytes."""
    if size is None or images.shape[1:3] == size:
        return images
    out = np.empty((len(images), *size, images.shape[3]), np.uint8)
    for start in range(0, len(images), 1024):  # bounds the memory for floats
        part = slice(start, start + 1024)
        out[part] = np.rint(resize(images[part].astype(np.float32), size))
    return out


@contextlib.contextmanager
def _opened(file: BinaryIO, where: str) -> Iterator[Image.Image]:
    try:
        with Image.open(file, formats=FORMATS) as image:
            yield image
    except Exception as error:  # decoders of damaged images raise anything
        raise ValueError(
            f"{where}: expected an image, got a damaged or other file ({error})"
        ) from None


def _channels(image: Image.Image) -> int:
    return 1 if image.mode in ("1", "L", "LA") or image.mode.startswith("I") else 3


def _text(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
