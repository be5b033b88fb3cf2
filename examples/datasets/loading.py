"""Loading a data set by its name, and splitting it."""

from __future__ import annotations

import dataclasses
from numbers import Integral

import numpy as np

from datasets.augment import Augment
from datasets.digits import digits
from datasets.fashion_mnist import fashion_mnist
from datasets.image_folder import image_folder
from datasets.parts import Parts
from datasets.pictures import Size
from datasets.record_folder import record_folder
from datasets.source import Shape, Source, split

LOADERS = {
    "fashion_mnist": fashion_mnist,
    "digits": digits,
    "images": image_folder,
    "tfrecords": record_folder,
}
NAMES = tuple(LOADERS)
"""Data sets that `load` knows."""

TEST_SHARE = 0.2
"""Of the images of a data set that has no test part."""

TEST_SEED = 0
"""Fixed, so that runs with other seeds are tested on the same images and train on none of them."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set ready for training.

    Args:
        name: as given to `load`.
        train: images for training.
        validation: images to choose by, none of them in `train`; None if none were asked for.
        test: images for the last word.
        classes: number of classes; labels are 0 to `classes` - 1.
        shape: of an image, (h, w, c).
        labels: names of the classes.
        augment: what suits its training images; None for no change.
    """

    name: str
    train: Source
    validation: Source | None
    test: Source
    classes: int
    shape: Shape
    labels: tuple[str, ...]
    augment: Augment | None


def load(
    name: str,
    data_dir: str | None = None,
    validation: float = 0.1,
    seed: int = 0,
    image_size: int | Size | None = None,
) -> Dataset:
    """A data set, checked and split.

    Args:
        name: one of `NAMES`.
        data_dir: folder of the data, where there is one.
        validation: share of the training images that is kept for validation, class by class, from
            0 to less than 1; 0 for none. A validation part that the data set has is used instead.
        seed: chooses these images. A test part that the data set does not have is always cut out
            the same way.
        image_size: height and width in pixels, or one number for both; None keeps the images as
            they are.

    Raises:
        FileNotFoundError: no data; the message says what was looked for.
        ValueError: an unknown name, a bad argument, or data that cannot be used; the message names
            the file.

    Example:
        >>> data = load("digits")
        >>> data.train.images([0, 1]).shape
        (2, 8, 8, 1)
    """
    if name not in LOADERS:
        raise ValueError(f"data set '{name}': expected one of {', '.join(NAMES)}")
    if not 0 <= validation < 1:
        raise ValueError(
            f"data set '{name}': expected validation from 0 to less than 1, got {validation}"
        )
    if seed < 0:
        raise ValueError(f"data set '{name}': expected a seed of at least 0, got {seed}")
    try:
        parts = LOADERS[name](data_dir, _size(name, image_size))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(
            f"data set '{name}': expected to read '{error.filename}', got: {error.strerror}; "
            "check what it is and its permissions"
        ) from None
    return _split(name, parts, validation, seed)


def _size(name: str, image_size: int | Size | None) -> Size | None:
    if image_size is None:
        return None
    size = (image_size, image_size) if np.ndim(image_size) == 0 else tuple(image_size)
    if len(size) != 2 or any(not isinstance(n, Integral) or n < 1 for n in size):
        raise ValueError(
            f"data set '{name}': expected image_size as one or two whole numbers of at least 1, "
            f"got {image_size}"
        )
    return int(size[0]), int(size[1])


def _split(name: str, parts: Parts, share: float, seed: int) -> Dataset:
    train, validation, test = parts.train, parts.validation, parts.test
    if test is None:
        train, test = split(train, TEST_SHARE, TEST_SEED)
    if validation is None and share > 0:
        count = len(train)
        train, validation = split(train, share, seed)
        if not len(validation):
            raise ValueError(
                f"data set '{name}': expected enough images for a validation part, "
                f"got {share} of {count}"
            )
    missing = np.setdiff1d(np.arange(len(parts.names)), train.labels)
    if missing.size:
        raise ValueError(
            f"data set '{name}': expected images of each class for training, "
            f"got none of class '{parts.names[missing[0]]}'"
        )
    if not len(test):
        raise ValueError(f"data set '{name}': expected images for testing, got none")
    return Dataset(
        name=name,
        train=train,
        validation=validation,
        test=test,
        classes=len(parts.names),
        shape=train.shape,
        labels=parts.names,
        augment=parts.augment,
    )
