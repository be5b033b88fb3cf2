"""Functions with hand-written gradients that read and write their data once.

A chain of elementwise operations costs a pass over memory for each of them, forward and backward,
and keeps every intermediate tensor for the gradient. JAX and XLA fuse such chains. A TensorFlow
graph that is not compiled as a whole runs them one by one; there the chain alone is compiled by
XLA, once for each shape, and stands in the graph as a single node.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable

from keras import ops

LANES = 16
"""Sums run side by side in so many columns, each of as many neighbours. XLA makes one loop of such
a sum and of what is added up; of longer ones two, with a tensor between them."""

SMALL = 2**18
"""Tensors of fewer elements are not worth the tenth of a second that compiling takes: a pass over
so many takes a tenth of a millisecond."""


def fused(forward: Callable, backward: Callable, passes: bool = False) -> Callable:
    """The function `forward`, whose gradient is `backward`; each is one pass over the data.

    Both are elementwise, end in sums at most, and know nothing but their arguments. Make one such
    function for each setting, not for each call: what was compiled belongs to it.

    Args:
        forward: `forward(x, *parameters) -> y`; float tensors.
        backward: `backward(x, *parameters, y, dy)` gives a gradient for each argument of `forward`.
            That of a parameter may be sums of `partial_sum`, along further axes; None is 0.
        passes: the gradient of x is dy itself, and `backward` gives those of the parameters.

    Returns:
        A function of the arguments of `forward`.
    """
    forth, back = one_pass(forward), one_pass(backward)

    @ops.custom_gradient
    def function(*arguments):
        y = forth(*arguments)

        def gradient(dy):
            found = back(*arguments, y, dy)
            found = (dy, *found) if passes else found
            return tuple(_finished(g, a) for g, a in zip(found, arguments, strict=True))

        return y, gradient

    return function


def one_pass(function: Callable) -> Callable:
    """`function`, compiled by itself where it becomes part of a TensorFlow graph on a CPU.

    Compiled code is for one shape, so tensors with unknown axes, but for the first, are left to
    TensorFlow, and so are small ones. An unknown first axis counts as long.

    Args:
        function: of tensors; the first is the one that costs.
    """
    compiled = None

    @functools.wraps(function)
    def run(*arguments):
        nonlocal compiled
        if not _worth_compiling(arguments[0]):
            return function(*arguments)
        if compiled is None:
            tf = sys.modules["tensorflow"]
            compiled = tf.function(function, jit_compile=True, autograph=False)
        return compiled(*arguments)

    return run


def _worth_compiling(x) -> bool:
    tf = sys.modules.get("tensorflow")
    if tf is None or not tf.is_tensor(x) or tf.executing_eagerly() or x.shape.rank is None:
        return False
    if None in tuple(x.shape[1:]):
        return False
    long = x.shape.rank > 0 and x.shape[0] is None
    return (long or math.prod(x.shape) >= SMALL) and _compiles(tf)


@functools.cache
def _compiles(tf) -> bool:
    """Whether this TensorFlow compiles for the processor, found out once by a trial."""
    # With an accelerator in sight nobody knows yet which device will run the node.
    if any(device.device_type != "CPU" for device in tf.config.get_visible_devices()):
        return False
    # A graph is being made, and the trial is no part of it.
    with tf.init_scope():
        if not tf.executing_eagerly():
            return False
        try:
            trial = tf.function(lambda x: x + x, jit_compile=True, autograph=False)
            return float(trial(tf.ones(()))) == 2.0
        except (tf.errors.OpError, ValueError):
            return False


def partial_sum(values, like):
    """Sum of `values` towards the shape of the parameter `like`, which was broadcast to them.

    For a scalar some sums are left, which `fused` adds up outside: a compiler that adds up a whole
    tensor must keep the order, one addition after the other; columns it adds side by side.

    Args:
        values: float tensor.
        like: scalar, or a tensor that broadcasts against `values`.
    """
    if len(like.shape) == 0:
        return ops.sum(values) if is_small(values) else _columns(values)
    missing = len(values.shape) - len(like.shape)
    axes = tuple(i for i in range(len(values.shape)) if i < missing or like.shape[i - missing] == 1)
    return ops.reshape(ops.sum(values, axis=axes), like.shape) if axes else values


def is_small(x) -> bool:
    """Whether `one_pass` leaves a tensor of this shape to the graph."""
    shape = tuple(x.shape)
    return None not in shape and math.prod(shape) < SMALL


def _columns(values):
    """Sums of neighbours, (n, LANES); of examples, where the size of one is odd."""
    size = math.prod(size or 1 for size in values.shape[1:])
    if size % LANES**2:
        return ops.sum(ops.reshape(values, (-1, size)), axis=0)
    return ops.sum(ops.reshape(values, (-1, LANES, LANES)), axis=1)


def _finished(gradient, argument):
    if gradient is None:
        return None
    spare = tuple(range(len(argument.shape), len(gradient.shape)))
    return ops.sum(gradient, axis=spare) if spare else gradient
