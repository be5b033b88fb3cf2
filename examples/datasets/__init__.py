"""Data sets of the examples.

`load` gives the parts of a data set as sources of images, `Batches` and `EvaluationBatches` cut
them into batches.

Example:
    >>> digits = load("digits", seed=1)
    >>> batches = Batches(digits.train, batch_size=32, seed=1, augment=digits.augment)
    >>> images, labels = batches.batch(0)
"""

from datasets.augment import Augment
from datasets.batches import Batches
from datasets.evaluation import EvaluationBatches
from datasets.loading import NAMES, Dataset, load
from datasets.source import Source, everything

__all__ = [
    "NAMES",
    "Augment",
    "Batches",
    "Dataset",
    "EvaluationBatches",
    "Source",
    "everything",
    "load",
]
