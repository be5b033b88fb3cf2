"""A function of the step as a `tf.data.Dataset` or as a generator; both work ahead on threads."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

THREADS = 4
"""Of the generator, and batches that it makes ahead."""

Arrays = TypeVar("Arrays", bound=tuple[np.ndarray, ...])


def numpy_pipeline(batch: Callable[[int], Arrays], first: int, last: int) -> Iterator[Arrays]:
    """Yields `batch(first)`, ..., `batch(last - 1)`, in order, made ahead on threads.

    Args:
        batch: a pure function of the step.
        first: first step.
        last: step behind the last.
    """
    pool = ThreadPoolExecutor(THREADS)
    coming = collections.deque()
    try:
        for step in range(first, last):
            coming.append(pool.submit(batch, step))
            if len(coming) > THREADS:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:  # also when whoever asked has enough
        pool.shutdown(cancel_futures=True)


def tf_pipeline(
    batch: Callable[[int], Arrays],
    first: int,
    last: int,
    elements: Sequence[tuple[str, tuple[int | None, ...]]],
):
    """A dataset of `batch(first)`, ..., `batch(last - 1)`, in order, made ahead on threads.

    Args:
        batch: a pure function of the step.
        first: first step.
        last: step behind the last.
        elements: type and shape of each array of a batch.
    """
    import tensorflow as tf  # not needed on JAX

    types = [dtype for dtype, _ in elements]

    def of_step(step):
        # Not stateful: under determinism, stateful functions would run one at a time.
        arrays = tf.numpy_function(batch, [step], types, stateful=False)
        return tuple(
            tf.ensure_shape(array, shape)
            for array, (_, shape) in zip(arrays, elements, strict=True)
        )

    ahead = tf.data.AUTOTUNE
    steps = tf.data.Dataset.range(first, last)
    return steps.map(of_step, num_parallel_calls=ahead, deterministic=True).prefetch(ahead)
