"""A function of the step as a `tf.data.Dataset`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def tf_pipeline(
    batch: Callable[[int], tuple[np.ndarray, ...]],
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
