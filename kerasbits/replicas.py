"""Statistics of a batch whose parts lie on several replicas.

Under a `tf.distribute` strategy each replica runs a layer on its part of the batch, and keeps its
own copy of every variable. A method that stores what it finds in a batch has to find the same on
all replicas, or the copies drift apart. These functions see the whole batch: with them a step on
several replicas gives what one replica gives on the same batch, up to the order of sums.

Anywhere else they return what they are given: on a single replica, outside of `strategy.run`, and
on JAX, where `keras.distribution.DataParallel` makes the arrays themselves span the devices.

All replicas must call them the same number of times, so never inside `ops.cond`: see `several`.

Example, the largest value of a batch in the `observe` of a method:

    (top,) = replicas.largest(ops.max(x))
"""

from __future__ import annotations

import sys

from keras import ops


def several() -> bool:
    """Whether this code runs on one of several replicas."""
    return _context() is not None


def largest(*values) -> list:
    """The largest of each value over all replicas.

    Formula: `max_r v_r`, elementwise. The smallest is `-largest(-v)`, and `any` is `largest` of 0
    and 1. One message a call, whatever the number of values; no gradient.

    Args:
        values: float tensors of one shape and dtype.
    """
    context = _context()
    if context is None:
        return list(values)
    mine = ops.stack([ops.stop_gradient(v) for v in values])
    # A sum is what all strategies can do: each replica fills its own row, the others are 0.
    rows = ops.arange(context.num_replicas_in_sync) == context.replica_id_in_sync_group
    rows = ops.reshape(rows, (-1, *(1 for _ in mine.shape)))
    every = context.all_reduce("SUM", ops.where(rows, mine, ops.zeros_like(mine)))
    return ops.unstack(ops.max(every, axis=0), len(values))


def total(*values) -> list:
    """The sum of each value over all replicas.

    Formula: `sum_r v_r`, elementwise. One message a call; no gradient.

    Args:
        values: float tensors of one dtype, of any shapes, which all replicas share.
    """
    context = _context()
    if context is None:
        return list(values)
    return list(context.all_reduce("SUM", [ops.stop_gradient(v) for v in values]))


def _context():
    """TensorFlow's replica context if it has several replicas, else None.

    Nobody can have made a strategy where TensorFlow was never imported.
    """
    tf = sys.modules.get("tensorflow")
    context = None if tf is None else tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None
