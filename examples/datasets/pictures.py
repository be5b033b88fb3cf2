"""Resizing images; reading them from files."""

from __future__ import annotations

import numpy as np
from PIL import Image

Size = tuple[int, int]
"""Height and width."""


def resize(images: np.ndarray, size: Size | None) -> np.ndarray:
    """Images (n, h, w, c) float32 at another height and width, by area-weighted interpolation."""
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
