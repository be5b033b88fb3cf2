"""TensorFlow functions of several arguments in Keras 3, under TensorFlow's names of arguments."""

from __future__ import annotations

import itertools
import math

import numpy as np
import tensorflow as tf
from keras import ops


def reshape(tensor, shape):
    """`tf.reshape`. An unknown size of the batch leaves room for one more, -1."""
    shape = [int(n) if isinstance(n, np.integer) else n for n in shape]
    known = math.prod(n for n in shape if n not in (None, -1))
    if None in shape and -1 in shape:
        if list(tensor.shape).count(None) != 1:
            raise ValueError(f"expected one unknown size, got {tuple(tensor.shape)} to {shape}")
        rest = math.prod(n for n in tensor.shape if n is not None)
        shape[shape.index(-1)] = rest // known
    if shape.count(None) > 1:
        raise ValueError(f"expected one unknown size at most, got {shape}")
    return ops.reshape(tensor, tuple(-1 if n is None else n for n in shape))


def batch_flatten(x):
    """`tf_keras.backend.batch_flatten`."""
    return ops.reshape(x, (-1, math.prod(x.shape[1:])))


def shape(input, out_type=None):
    """`tf.shape`: sizes as numbers, None where unknown."""
    return tuple(input.shape)


def size(input, out_type=None):
    """`tf.size`, None if unknown."""
    return None if None in input.shape else math.prod(input.shape)


def concat(values, axis):
    """`tf.concat`, of tensors or of shapes."""
    if any(hasattr(v, "shape") and len(v.shape) > 1 for v in values):
        return ops.concatenate(list(values), int(axis))
    if all(isinstance(v, tuple | list | np.ndarray) for v in values):
        return tuple(itertools.chain(*values))
    return ops.concatenate(list(values), int(axis))


def stack(values, axis=0):
    """`tf.stack`, of tensors or of sizes."""
    if all(v is None or isinstance(v, int) for v in values):
        return tuple(values)
    return ops.stack(list(values), axis)


def split(value, num_or_size_splits, axis=0):
    """`tf.split`."""
    if isinstance(num_or_size_splits, int):
        return ops.split(value, num_or_size_splits, axis)
    return ops.split(value, list(itertools.accumulate(num_or_size_splits))[:-1], axis)


def unstack(value, num=None, axis=0):
    """`tf.unstack`."""
    return ops.unstack(value, num, axis)


def pad(tensor, paddings, mode="CONSTANT", constant_values=0):
    """`tf.pad`."""
    around = tuple((int(before), int(after)) for before, after in paddings)
    if mode.upper() == "CONSTANT":
        return ops.pad(tensor, around, "constant", constant_values)
    return ops.pad(tensor, around, mode.lower())


def transpose(a, perm=None):
    """`tf.transpose`."""
    return ops.transpose(a, None if perm is None else tuple(int(i) for i in perm))


def squeeze(input, axis=None):
    """`tf.squeeze`."""
    if isinstance(axis, list | tuple):
        axis = tuple(axis) or None
    return ops.squeeze(input, axis)


def gather(params, indices, axis=None):
    """`tf.gather`."""
    return ops.take(params, indices, 0 if axis is None else int(axis))


def one_hot(indices, depth, axis=None, dtype=None):
    """`tf.one_hot`."""
    dtype = "float32" if dtype is None else tf.as_dtype(dtype).name
    return ops.one_hot(indices, int(depth), -1 if axis is None else axis, dtype=dtype)


def cast(x, dtype):
    """`tf.cast`."""
    return ops.cast(x, tf.as_dtype(dtype).name)


def clip_by_value(t, clip_value_min, clip_value_max):
    """`tf.clip_by_value`."""
    return ops.clip(t, clip_value_min, clip_value_max)


def matmul(a, b, transpose_a=False, transpose_b=False):
    """`tf.matmul`."""
    a = ops.swapaxes(a, -1, -2) if transpose_a else a
    b = ops.swapaxes(b, -1, -2) if transpose_b else b
    return ops.matmul(a, b)


def l2_normalize(x, axis=None, epsilon=1e-12):
    """`tf.math.l2_normalize`: `x / sqrt(max(sum(x^2), epsilon))`."""
    power = ops.sum(ops.square(x), axis, keepdims=True)
    return ops.multiply(x, ops.rsqrt(ops.maximum(power, epsilon)))


def norm(tensor, ord="euclidean", axis=None, keepdims=None):
    """`tf.norm`; the euclidean one of all elements, or along axes."""
    if ord == "euclidean":
        return ops.sqrt(ops.sum(ops.square(tensor), axis, keepdims=bool(keepdims)))
    return ops.norm(tensor, ord, axis, bool(keepdims))


def argmax(input, axis=None, output_type=tf.int64):
    """`tf.argmax`."""
    return ops.cast(ops.argmax(input, axis or 0), tf.as_dtype(output_type).name)


def argmin(input, axis=None, output_type=tf.int64):
    """`tf.argmin`."""
    return ops.cast(ops.argmin(input, axis or 0), tf.as_dtype(output_type).name)


def softmax(logits, axis=None):
    """`tf.nn.softmax`."""
    return ops.softmax(logits, -1 if axis is None else axis)


def log_softmax(logits, axis=None):
    """`tf.nn.log_softmax`."""
    return ops.log_softmax(logits, -1 if axis is None else axis)


def silu(features, beta=1.0):
    """`tf.nn.silu`: `x sigmoid(beta x)`."""
    if beta == 1.0:
        return ops.silu(features)
    return ops.multiply(features, ops.sigmoid(ops.multiply(features, beta)))


def bias_add(value, bias, data_format=None):
    """`tf.nn.bias_add`."""
    _check_channels_last(data_format)
    return ops.add(value, bias)


def max_pool2d(input, ksize, strides, padding, data_format="NHWC"):
    """`tf.nn.max_pool2d`."""
    _check_channels_last(data_format)
    sizes = _pair(ksize), _pair(strides)
    return ops.max_pool(input, *sizes, _padding(padding), "channels_last")


def avg_pool2d(input, ksize, strides, padding, data_format="NHWC"):
    """`tf.nn.avg_pool2d`."""
    _check_channels_last(data_format)
    sizes = _pair(ksize), _pair(strides)
    return ops.average_pool(input, *sizes, _padding(padding), "channels_last")


def resize(images, size, method="bilinear", antialias=False):
    """`tf.image.resize`."""
    return ops.image.resize(
        images, tuple(int(n) for n in size), method, antialias, data_format="channels_last"
    )


def depth_to_space(input, block_size, data_format="NHWC"):
    """`tf.nn.depth_to_space`."""
    _check_channels_last(data_format)
    return ops.depth_to_space(input, int(block_size), "channels_last")


def space_to_depth(input, block_size, data_format="NHWC"):
    """`tf.nn.space_to_depth`."""
    _check_channels_last(data_format)
    return ops.space_to_depth(input, int(block_size), "channels_last")


def part(input_, begin, size):
    """`tf.slice`."""
    pairs = zip(begin, size, strict=True)
    return input_[tuple(slice(int(b), None if n == -1 else int(b) + int(n)) for b, n in pairs)]


def add_n(inputs):
    """`tf.add_n`."""
    total = inputs[0]
    for value in inputs[1:]:
        total = ops.add(total, value)
    return total


def _check_channels_last(data_format) -> None:
    if data_format not in (None, "NHWC", "N...C"):
        raise ValueError(f"expected NHWC, got {data_format}")


def _pair(value) -> tuple[int, int]:
    """Rows and columns of a window or a stride: a number, 1, 2 or 4 of them."""
    if isinstance(value, int):
        return value, value
    values = [int(n) for n in value]
    if len(values) == 4:
        if values[0] != 1 or values[3] != 1:
            raise ValueError(f"expected 1 for samples and channels, got {values}")
        values = values[1:3]
    return values[0], values[-1]


def _padding(padding) -> str:
    if not isinstance(padding, str):
        raise ValueError(f"expected padding SAME or VALID, got {padding!r}")
    return padding.lower()


FUNCTIONS = {
    "broadcast_to": lambda input, shape: ops.broadcast_to(input, tuple(shape)),
    "cast": cast,
    "clip_by_value": clip_by_value,
    "compat.v1.gather": gather,
    "compat.v1.norm": norm,
    "compat.v1.pad": pad,
    "compat.v1.shape": shape,
    "compat.v1.size": size,
    "compat.v1.squeeze": squeeze,
    "compat.v1.transpose": transpose,
    "concat": concat,
    "einsum": lambda equation, inputs: ops.einsum(equation, *inputs),
    "expand_dims": lambda input, axis: ops.expand_dims(input, int(axis)),
    "image.resize": resize,
    "keras.backend.batch_flatten": batch_flatten,
    "linalg.matmul": matmul,
    "math.add_n": add_n,
    "math.argmax": argmax,
    "math.argmin": argmin,
    "math.cumsum": lambda x, axis=0: ops.cumsum(x, axis),
    "math.l2_normalize": l2_normalize,
    "math.top_k": lambda input, k=1, sorted=True: ops.top_k(input, k, sorted),
    "nn.avg_pool2d": avg_pool2d,
    "nn.bias_add": bias_add,
    "nn.depth_to_space": depth_to_space,
    "nn.gelu": lambda features, approximate=False: ops.gelu(features, approximate),
    "nn.leaky_relu": lambda features, alpha=0.2: ops.leaky_relu(features, alpha),
    "nn.log_softmax": log_softmax,
    "nn.max_pool2d": max_pool2d,
    "nn.silu": silu,
    "nn.softmax": softmax,
    "nn.space_to_depth": space_to_depth,
    "one_hot": one_hot,
    "ones_like": lambda input, dtype=None: ops.ones_like(input, dtype),
    "repeat": lambda input, repeats, axis=None: ops.repeat(input, repeats, axis),
    "reshape": reshape,
    "reverse": lambda tensor, axis: ops.flip(tensor, tuple(axis)),
    "slice": part,
    "split": split,
    "stack": stack,
    "tensordot": lambda a, b, axes: ops.tensordot(a, b, axes),
    "tile": lambda input, multiples: ops.tile(input, tuple(multiples)),
    "unstack": unstack,
    "where": lambda condition, x=None, y=None: ops.where(condition, x, y),
    "zeros_like": lambda input, dtype=None: ops.zeros_like(input, dtype),
}
"""By the public names of TensorFlow."""
