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
from collections.abc import Callable, Sequence

from keras import ops

LANES = 16
"""Sums run side by side in so many columns, each of as many neighbours. XLA makes one loop of such
a sum and of what is added up; of longer ones two, with a tensor between them."""

SMALL = 2**18
"""Tensors of fewer elements are not worth the tenth of a second that compiling takes: a pass over
so many takes a tenth of a millisecond."""


def fused(
    forward: Callable, backward: Callable, passes: bool = False, tables: Sequence[int] = ()
) -> Callable:
    """The function `forward`, whose gradient is `backward`; each is one pass over the data.

    Both are elementwise, end in sums at most, and know nothing but their arguments. Make one such
    function for each setting, not for each call: what was compiled belongs to it.

    Args:
        forward: `forward(x, *parameters) -> y`; float tensors.
        backward: `backward(x, *parameters, y, dy)` gives a gradient for each argument of `forward`.
            That of a parameter may be sums of `partial_sum`, along further axes; None is 0.
        passes: the gradient of x is dy itself, and `backward` gives those of the parameters.
        tables: which parameters, counted from 0, are vectors that are not broadcast to x.

    Returns:
        A function of the arguments of `forward`.
    """
    forth, back = one_pass(forward), one_pass(backward)

    @ops.custom_gradient
    def function(x, *parameters):
        broadcast = [p for i, p in enumerate(parameters) if i not in tables]
        lined_up, shape = _lines_up(x, broadcast), ops.shape(x)
        v = _in_rows(x) if lined_up else x
        y = forth(v, *parameters)

        def gradient(dy):
            found = back(v, *parameters, y, _in_rows(dy) if lined_up else dy)
            dx, *found = (dy, *found) if passes else found
            dx = ops.reshape(dx, shape) if lined_up else dx
            return dx, *(_finished(g, p) for g, p in zip(found, parameters, strict=True))

        return ops.reshape(y, shape) if lined_up else y, gradient

    return function


def _lines_up(x, parameters) -> bool:
    """Whether x may have another shape: it is compiled alone, and no parameter is broadcast to it.

    Loops over one shape for all are compiled once for all, and none divides to find the place of
    an element in another shape.
    """
    alone = all(len(p.shape) == 0 for p in parameters)
    return alone and _worth_compiling(x) and _inner_size(x) % LANES**2 == 0


def _in_rows(x):
    return ops.reshape(x, (-1, LANES**2))


def _inner_size(x) -> int:
    """Elements of an example, as far as known."""
    return math.prod(size or 1 for size in x.shape[1:])


def one_pass(function: Callable, small: int = SMALL) -> Callable:
    """`function`, compiled by itself where it becomes part of a TensorFlow graph on a CPU.

    Compiled code is for one shape, so tensors with unknown axes, but for the first, are left to
    TensorFlow, and so are small ones. An unknown first axis counts as long.

    Args:
        function: of tensors; the first is the one that costs.
        small: fewer elements are left to TensorFlow.
    """
    compiled = None

    @functools.wraps(function)
    def run(*arguments):
        nonlocal compiled
        if not _worth_compiling(arguments[0], small):
            return function(*arguments)
        if compiled is None:
            tf = sys.modules["tensorflow"]
            compiled = tf.function(function, jit_compile=True, autograph=False)
        return compiled(*arguments)

    return run


def row_by_row(function: Callable) -> Callable:
    """`one_pass` of a function of rows, which takes them in turn where that is compiled for a CPU.

    What is made of one row stays in the cache, and no loop runs over the elements of all rows and
    divides to tell them apart.

    Args:
        function: of tensors with one number of rows; gives tensors with as many, each row by that
            row alone.
    """

    def row(values):
        found = function(*(ops.expand_dims(v, 0) for v in values))
        return tuple(ops.squeeze(v, 0) for v in found)

    def in_turn(*arguments):
        return ops.map(row, arguments)

    compiled = one_pass(in_turn)

    @functools.wraps(function)
    def run(*arguments):
        turns = _worth_compiling(arguments[0]) or _jax_on_cpu(arguments[0])
        return compiled(*arguments) if turns else function(*arguments)

    return run


def _jax_on_cpu(x) -> bool:
    jax = sys.modules.get("jax")
    if jax is None or not isinstance(x, jax.Array):
        return False
    return not is_small(x) and jax.default_backend() == "cpu"


def _worth_compiling(x, small: int = SMALL) -> bool:
    tf = sys.modules.get("tensorflow")
    if tf is None or not tf.is_tensor(x) or tf.executing_eagerly() or x.shape.rank is None:
        return False
    if None in tuple(x.shape[1:]):
        return False
    long = x.shape.rank > 0 and x.shape[0] is None
    return (long or math.prod(x.shape) >= small) and _compiles(tf)


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


def partial_sum(terms: Callable, tensors: Sequence, like):
    """Sum of `terms(*tensors)` towards the shape of the parameter `like`, which was broadcast.

    For a scalar some sums are left, which `fused` adds up outside: a compiler that adds up a whole
    tensor must keep the order, one addition after the other; columns it adds side by side.

    Args:
        terms: elementwise.
        tensors: floats of one shape.
        like: scalar, or a tensor that broadcasts against them.
    """
    if len(like.shape) == 0:
        return _columns(terms, tensors)
    values = terms(*tensors)
    missing = len(values.shape) - len(like.shape)
    axes = tuple(i for i in range(len(values.shape)) if i < missing or like.shape[i - missing] == 1)
    return ops.reshape(ops.sum(values, axis=axes), like.shape) if axes else values


def is_small(x) -> bool:
    """Whether `one_pass` leaves a tensor of this shape to the graph: its size, or unknown axes."""
    shape = tuple(x.shape)
    return None in shape[1:] or (None not in shape and math.prod(shape) < SMALL)


def _columns(terms: Callable, tensors: Sequence):
    """Sums of neighbours, (n, LANES); of examples, if they are few or the size of one is odd."""
    size = _inner_size(tensors[0])
    if is_small(tensors[0]) or size % LANES**2:
        some_axis_unknown = None in tensors[0].shape[1:]
        shape = (ops.shape(tensors[0])[0], -1) if some_axis_unknown else (-1, size)
        return ops.sum(terms(*(ops.reshape(t, shape) for t in tensors)), axis=0)
    return ops.sum(terms(*(ops.reshape(t, (-1, LANES, LANES)) for t in tensors)), axis=1)


def rows_in_turn(total: Callable, weights, varying):
    """`total(row, varying)` of each row that is not 0, else 0; (rows,).

    A loop leaves out what is 0, where a compiler takes a condition for a choice between results.

    Args:
        total: gives a scalar.
        weights: (rows, n).
        varying: a scalar that `total` depends on. Of what does not vary in a loop, a compiler
            makes tensors before it.
    """
    rows = weights.shape[0]
    wanted = ops.cast(ops.any(weights != 0, axis=1), "int32")

    def first(i):
        """The first wanted row from i on, or the end."""
        ahead = ops.where(ops.arange(rows) >= i, wanted, 0)
        return ops.where(ops.max(ahead) > 0, ops.cast(ops.argmax(ahead), "int32"), rows)

    def turn(i, varying, found):
        value = ops.reshape(total(ops.take(weights, i, axis=0), varying), (1,))
        # No compiler knows that i is never below 0.
        varying = ops.where(i < 0, ops.zeros_like(varying), varying)
        return first(i + 1), varying, ops.slice_update(found, (i,), value)

    start = first(0), varying, ops.zeros((rows,), weights.dtype)
    return ops.while_loop(lambda i, *_: i < rows, turn, start)[-1]


def _finished(gradient, argument):
    if gradient is None:
        return None
    spare = tuple(range(len(argument.shape), len(gradient.shape)))
    return ops.sum(gradient, axis=spare) if spare else gradient
