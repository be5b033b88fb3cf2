"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from datasets.parts import Parts
from datasets.pictures import Size, resize
from datasets.source import Arrays

WHITE = 16
"""Pixels are whole numbers from 0 to 16."""


def digits(data_dir: str | None = None, image_size: Size | None = None) -> Parts:
    """1,797 images of digits, 8 x 8 x 1; nothing to download.

    Args:
        data_dir: must be None, there are no files.
        image_size: height and width to resize to.

    Raises:
        ValueError: a `data_dir`, or no scikit-learn.
    """
    if data_dir is not None:
        raise ValueError(f"data set 'digits': expected no data_dir, got '{data_dir}'")
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ValueError(
            "data set 'digits': expected scikit-learn, found none; pip install scikit-learn"
        ) from None
    found = load_digits()
    images = resize(found.images[..., None].astype(np.float32), image_size)
    source = Arrays(images, found.target, white=WHITE)
    return Parts(source, names=tuple(str(n) for n in found.target_names))
