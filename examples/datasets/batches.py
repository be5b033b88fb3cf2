"""Training batches, each a function of the number of the step alone."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from datasets.augment import Augment
from datasets.pipeline import numpy_pipeline, tf_pipeline
from datasets.source import Source

ORDER, AUGMENTATION = 0, 1
"""Streams of random numbers under one seed."""

Batch = tuple[np.ndarray, np.ndarray]


class Batches:
    """Shuffled batches without end; whoever knows the step knows the batch.

    Steps count over all epochs. The order of an epoch depends on seed and epoch, augmentation on
    seed and step. So training that was interrupted goes on with the same batches if it knows where
    it was, and nothing of the pipeline needs to be saved. The images left over at the end of an
    epoch, fewer than a batch, are dropped; each epoch drops others.

    Args:
        source: images and labels.
        batch_size: images a step, over all workers.
        seed: at least 0.
        augment: what is done to images; None leaves them alone.

    Attributes:
        steps_per_epoch: whole batches in the source.

    Raises:
        ValueError: fewer images than a batch, or a size or seed out of range.

    Example:
        >>> batches = Batches(data.train, batch_size=128, seed=0, augment=data.augment)
        >>> model.fit(batches.tf_dataset(0, batches.steps_per_epoch))
    """

    def __init__(
        self, source: Source, batch_size: int, seed: int = 0, augment: Augment | None = None
    ):
        if batch_size < 1 or seed < 0:
            raise ValueError(
                "batches: expected a batch_size of at least 1 and a seed of at least 0, "
                f"got {batch_size} and {seed}"
            )
        if len(source) < batch_size:
            raise ValueError(
                f"batches: expected at least one batch of {batch_size} images for training, "
                f"got {len(source)} images; choose a smaller batch_size"
            )
        self.source, self.batch_size = source, batch_size
        self.seed, self.augment = seed, augment
        self.steps_per_epoch = len(source) // batch_size
        # Pipelines work ahead, so two epochs meet at a border.
        self._order_of = functools.lru_cache(maxsize=2)(self._order)

    def batch(self, step: int, worker: int = 0, workers: int = 1) -> Batch:
        """Images, (n, h, w, c) float32 in [0, 1], and labels, (n,) int32, of a step.

        Args:
            step: at least 0, counted over all epochs.
            worker: which part of the batch; its parts in order make up the batch.
            workers: number of equal parts.
        """
        rows = self._rows(worker, workers)
        epoch, place = divmod(int(step), self.steps_per_epoch)
        indices = self._order_of(epoch)[place * self.batch_size :][rows]
        images = self.source.images(indices)
        if self.augment is not None:
            drawn = self.augment.draw(self._rng(AUGMENTATION, int(step)), self.batch_size)
            images = self.augment.apply(images, drawn[rows])
        return images, self.source.labels[indices]

    def tf_dataset(self, first: int, last: int, worker: int = 0, workers: int = 1):
        """A `tf.data.Dataset` of the batches of steps `first` to `last` - 1.

        Batches are made ahead, on several threads, and come in order.
        """
        rows = self._rows(worker, workers)
        shape = (rows.stop - rows.start, *self.source.shape)
        return tf_pipeline(
            lambda step: self.batch(step, worker, workers),
            first,
            last,
            (("float32", shape), ("int32", shape[:1])),
        )

    def as_numpy(self, first: int, last: int, worker: int = 0, workers: int = 1) -> Iterator[Batch]:
        """The same batches as a generator, without TensorFlow."""
        self._rows(worker, workers)
        return numpy_pipeline(lambda step: self.batch(step, worker, workers), first, last)

    def _rows(self, worker: int, workers: int) -> slice:
        if workers < 1 or self.batch_size % workers or not 0 <= worker < workers:
            raise ValueError(
                f"batches: expected a batch_size, here {self.batch_size}, that divides into equal "
                f"parts for the workers, got worker {worker} of {workers}"
            )
        size = self.batch_size // workers
        return slice(worker * size, (worker + 1) * size)

    def _order(self, epoch: int) -> np.ndarray:
        return self._rng(ORDER, epoch).permutation(len(self.source))

    def _rng(self, stream: int, number: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, stream, number))
