"""What a data set brings, before it is split."""

from __future__ import annotations

import dataclasses

from datasets.augment import Augment
from datasets.source import Source


@dataclasses.dataclass(frozen=True)
class Parts:
    """Sources of a data set; those it does not have are cut from `train` later.

    Args:
        train: images for training.
        validation: images for choosing, if the data set says which.
        test: images for the last word, if the data set says which.
        names: names of the classes.
        augment: what suits its training images.
    """

    train: Source
    validation: Source | None = None
    test: Source | None = None
    names: tuple[str, ...] = ()
    augment: Augment | None = None
