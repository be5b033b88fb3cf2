"""Batches in order, for evaluation: each image once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from datasets.pipeline import numpy_pipeline, tf_pipeline
from datasets.source import Source

WeightedBatch = tuple[np.ndarray, np.ndarray, np.ndarray]


class EvaluationBatches:
    """All images in order, unchanged, with weights that mark padding.

    The last batch has the images that are left. Replicas need equal parts of a batch, so it is
    padded to a multiple of `multiple` by its last image, again and again, with weight 0; all other
    weights are 1. What counts by `weight` counts each image once. Without padding (`multiple` 1)
    all weights are 1.

    Args:
        source: images and labels.
        batch_size: images a step, over all replicas; a multiple of `multiple`.
        multiple: number of equal parts that a batch is cut into.

    Attributes:
        steps: number of batches.

    Raises:
        ValueError: no images, or sizes that do not fit.
    """

    def __init__(self, source: Source, batch_size: int, multiple: int = 1):
        if multiple < 1 or batch_size < 1 or batch_size % multiple:
            raise ValueError(
                f"evaluation batches: expected a batch_size that is a multiple of {multiple}, "
                f"got {batch_size}"
            )
        if not len(source):
            raise ValueError("evaluation batches: expected at least one image, got none")
        self.source, self.batch_size, self.multiple = source, batch_size, multiple
        self.steps = -(-len(source) // batch_size)

    def batch(self, step: int, worker: int = 0, workers: int = 1) -> WeightedBatch:
        """Images, (n, h, w, c) float32; labels, (n,) int32; weights, (n,) float32, 0 or 1.

        Args:
            step: from 0 to `steps` - 1.
            worker: which part of the batch; its parts in order make up the batch.
            workers: number of equal parts; divides `multiple`.
        """
        self._check(worker, workers)
        start = int(step) * self.batch_size
        real = min(self.batch_size, len(self.source) - start)
        part = -(-real // self.multiple) * self.multiple // workers
        places = start + worker * part + np.arange(part)
        indices = np.minimum(places, len(self.source) - 1)
        weights = (places < len(self.source)).astype(np.float32)
        return self.source.images(indices), self.source.labels[indices], weights

    def tf_dataset(self, worker: int = 0, workers: int = 1):
        """A `tf.data.Dataset` of all batches in order."""
        self._check(worker, workers)
        whole = len(self.source) % self.batch_size == 0
        count = (self.batch_size // workers if whole else None,)
        return tf_pipeline(
            lambda step: self.batch(step, worker, workers),
            0,
            self.steps,
            (("float32", (*count, *self.source.shape)), ("int32", count), ("float32", count)),
        )

    def as_numpy(self, worker: int = 0, workers: int = 1) -> Iterator[WeightedBatch]:
        """The same batches as a generator, without TensorFlow."""
        self._check(worker, workers)
        return numpy_pipeline(lambda step: self.batch(step, worker, workers), 0, self.steps)

    def _check(self, worker: int, workers: int) -> None:
        if workers < 1 or self.multiple % workers or not 0 <= worker < workers:
            raise ValueError(
                f"evaluation batches: expected a number of workers that divides {self.multiple}, "
                f"got worker {worker} of {workers}"
            )
