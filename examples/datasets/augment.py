"""Random changes of training images: pad and crop, flip."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Augment:
    """Shifts and mirrors images at random.

    What is drawn is kept apart from what is done, so that workers that share a batch can draw for
    all of it and change their own images only.

    Args:
        pad: pixels of black around an image, from which its size is cut again; so it moves by up
            to `pad` pixels each way.
        flip: whether half of the images are mirrored, left to right.

    Raises:
        ValueError: a negative `pad`.
    """

    pad: int = 0
    flip: bool = False

    def __post_init__(self):
        if self.pad < 0:
            raise ValueError(f"augment: expected pad of at least 0 pixels, got {self.pad}")

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """What to do with `count` images: (count, 3) int64 of first row, first column, flip."""
        corners = rng.integers(0, 2 * self.pad + 1, (count, 2))
        flips = rng.integers(0, 1 + self.flip, (count, 1))
        return np.concatenate([corners, flips], 1)

    def apply(self, images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """The changed images, (n, h, w, c), by what was drawn, (n, 3)."""
        height, width = images.shape[1:3]
        border = (self.pad, self.pad)
        padded = np.pad(images, ((0, 0), border, border, (0, 0)))
        changed = np.empty_like(images)
        for image, out, (row, column, flip) in zip(padded, changed, drawn.tolist(), strict=True):
            mirrored = image[:, ::-1] if flip else image
            out[:] = mirrored[row : row + height, column : column + width]
        return changed
