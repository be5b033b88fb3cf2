"""One case of each operation of .kbits files and more of the intricate ones, with what Keras,
TensorFlow or plain NumPy say that it gives; and files of one node."""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from tflite_export import kbits_generated as schema
from tflite_export.kbits import container

RNG = np.random.default_rng(0)


@dataclasses.dataclass(frozen=True)
class Case:
    """An operation, its inputs, attributes and right output."""

    op: str
    inputs: tuple[np.ndarray, ...]
    y: np.ndarray
    ints: tuple[int, ...] = ()
    floats: tuple[float, ...] = ()


def file_of(case: Case, **changes) -> bytes:
    """A file of one node. The last of several inputs is a constant.

    Args:
        changes: other attributes of the node, or `shape` for its output.
    """
    model, node = schema.ModelT(), schema.NodeT()
    model.tensors = [tensor_of(x.shape, x.dtype, f"x{i}") for i, x in enumerate(case.inputs)]
    model.inputs = list(range(len(case.inputs)))
    if len(case.inputs) > 1:
        last = model.tensors[model.inputs.pop()]
        last.name, last.data = None, np.frombuffer(case.inputs[-1].tobytes(), np.uint8)
    model.tensors.append(tensor_of(changes.pop("shape", case.y.shape), case.y.dtype, "y"))
    model.outputs, model.nodes, model.blobs = [len(case.inputs)], [node], []
    node.op, node.output = getattr(schema.Op, case.op), len(case.inputs)
    node.inputs, node.ints, node.floats = list(range(len(case.inputs))), case.ints, case.floats
    for name, value in changes.items():
        setattr(node, name, value)
    return container.serialize(model)


def tensor_of(shape, dtype, name=None):
    """A tensor of the schema."""
    tensor = schema.TensorT()
    tensor.shape, tensor.name = np.array(shape, np.int32), name
    tensor.type = schema.Type.INT32 if dtype == np.int32 else schema.Type.FLOAT32
    return tensor


def given(case: Case) -> list[np.ndarray]:
    """The inputs that are no constants."""
    return list(case.inputs[: max(1, len(case.inputs) - 1)])


def _x(*shape, low=-3.0, high=3.0):
    return RNG.uniform(low, high, shape).astype(np.float32)


def _case(op, inputs, y, ints=(), floats=()):
    dtype = np.asarray(y).dtype
    y = np.asarray(y, dtype if dtype == np.int32 else np.float32)
    return Case(op, tuple(np.asarray(x) for x in inputs), y, tuple(ints), tuple(floats))


def _binaries():
    shapes = [((2, 3, 4), (4,)), ((2, 1, 4), (3, 1)), ((2, 3), (2, 3)), ((3, 2), ()), ((), (2, 2))]
    functions = {
        "ADD": keras.ops.add,
        "SUB": keras.ops.subtract,
        "MUL": keras.ops.multiply,
        "DIV": keras.ops.divide,
        "MAXIMUM": keras.ops.maximum,
        "MINIMUM": keras.ops.minimum,
        "POW": keras.ops.power,
        "SQUARED_DIFFERENCE": tf.math.squared_difference,
        "PRELU": lambda x, a: np.maximum(x, 0) + a * np.minimum(x, 0),
    }
    for op, function in functions.items():
        low = 0.1 if op == "POW" else -3
        for a, b in shapes:
            x = _x(*a, low=low), _x(*b)
            yield _case(op, x, function(*x))
        if op != "PRELU":
            yield _case(op, x, np.clip(function(*x), -0.5, 1.25), floats=(-0.5, 1.25))


def _unaries():
    functions = {
        "ELU": keras.ops.elu,
        "LOGISTIC": keras.ops.sigmoid,
        "TANH": keras.ops.tanh,
        "HARD_SWISH": keras.ops.hard_silu,
        "EXP": keras.ops.exp,
        "LOG": keras.ops.log,
        "SQRT": keras.ops.sqrt,
        "RSQRT": keras.ops.rsqrt,
        "NEG": keras.ops.negative,
        "ABS": keras.ops.abs,
        "SQUARE": keras.ops.square,
        "SIN": keras.ops.sin,
        "COS": keras.ops.cos,
        "FLOOR": keras.ops.floor,
        "CEIL": keras.ops.ceil,
        "ROUND": tf.math.round,
        "SIGN": keras.ops.sign,
    }
    for op, function in functions.items():
        x = _x(3, 5, low=0.01 if op in ("LOG", "SQRT", "RSQRT") else -8, high=8)
        yield _case(op, [x], function(x))
    halves = np.array([-2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5], np.float32)
    yield _case("ROUND", [halves], [-2, -2, -0.0, 0, 0, 2, 2])
    yield _case("SIGN", [halves], [-1, -1, -1, 0, 1, 1, 1])
    x = _x(4, 6)
    yield _case("CLAMP", [x], keras.ops.relu(x), floats=(0, math.inf))
    yield _case("CLAMP", [3 * x], keras.ops.relu6(3 * x), floats=(0, 6))
    yield _case("LEAKY_RELU", [x], keras.ops.leaky_relu(x, 0.3), floats=(0.3,))
    yield _case("GELU", [2 * x], keras.ops.gelu(2 * x, approximate=False), ints=(0,))
    yield _case("GELU", [2 * x], keras.ops.gelu(2 * x, approximate=True), ints=(1,))
    far = np.array([-200, -100, 100, 200], np.float32)
    yield _case("LOGISTIC", [far], [0, np.exp(np.float64(-100)), 1, 1])
    yield _case("ELU", [far], [-1, -1, 100, 200])


def _pools():
    functions = {"MAX_POOL": keras.ops.max_pool, "AVERAGE_POOL": keras.ops.average_pool}
    for op, function in functions.items():
        x = _x(2, 7, 6, 3)
        y = function(x, (3, 2), (2, 1), "valid", "channels_last")
        yield _case(op, [x], y, (3, 2, 2, 1, 0, 0, 0, 0))
        y = function(x, (3, 2), (2, 1), "same", "channels_last")
        yield _case(op, [x], y, (3, 2, 2, 1, 1, 1, 0, 1))
        yield _case(op, [x], np.clip(y, 0, 0.5), (3, 2, 2, 1, 1, 1, 0, 1), (0, 0.5))
        y = function(x, 2, 2, "valid", "channels_last")  # the last row is left over
        yield _case(op, [x], y, (2, 2, 2, 2, 0, 0, 0, 0))
        yield _case(
            op, [x - 9], function(x - 9, 7, 7, "same", "channels_last"), (7, 7, 7, 7, 0, 0, 0, 1)
        )


def _reductions():
    for word in ("mean", "sum", "max", "min", "prod"):
        for shape, axes in (
            ((2, 3, 4, 5), (1, 2)),
            ((3, 4), (1,)),
            ((2, 3), (0, 1)),
            ((2, 5, 3), (0,)),
        ):
            x = _x(*shape)
            for keeps in (False, True):
                y = getattr(keras.ops, word)(x, axis=axes, keepdims=keeps)
                yield _case(f"REDUCE_{word.upper()}", [x], y, axes)


def _softmaxes():
    x = _x(2, 3, 7)
    yield _case("SOFTMAX", [x], keras.ops.softmax(x), floats=(1,))
    yield _case("SOFTMAX", [x + 1000], keras.ops.softmax(0.5 * (x + 1000)), floats=(0.5,))
    yield _case("LOG_SOFTMAX", [5 * x], keras.ops.log_softmax(5 * x))


def _moves():
    x, ids = _x(2, 3, 4), np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    for a in (x, ids):
        yield _case("RESHAPE", [a], a.reshape(6, 1, 4))
        yield _case("TRANSPOSE", [a], keras.ops.transpose(a, (2, 0, 1)), (2, 0, 1))
        yield _case("SLICE", [a], a[1:2, 2::-2, 1:4], (1, 2, 1, 1, -2, 1))
        yield _case("SLICE", [a], a[::-1, :, ::2], (1, 0, 0, -1, 1, 2))
        yield _case("CONCATENATION", [a, a[:, :1]], np.concatenate([a, a[:, :1]], 1), (1,))
        yield _case("CONCATENATION", [a, a, a], keras.ops.concatenate([a, a, a], -1), (2,))
        yield _case("TILE", [a], keras.ops.tile(a, (2, 1, 3)))
    yield _case("CONCATENATION", [x], x, (0,))
    yield _case(
        "PAD",
        [x],
        np.pad(x, ((0, 0), (1, 2), (3, 0)), constant_values=-1.5),
        (0, 0, 1, 2, 3, 0),
        (-1.5,),
    )
    pads = ((1, 1), (2, 0), (3, 1))
    flat = tuple(p for pair in pads for p in pair)
    yield _case("MIRROR_PAD", [x], tf.pad(x, pads, "REFLECT"), (0, *flat))
    pads = ((2, 1), (3, 0), (4, 1))
    flat = tuple(p for pair in pads for p in pair)
    yield _case("MIRROR_PAD", [x], tf.pad(x, pads, "SYMMETRIC"), (1, *flat))


def _resizes():
    functions = {
        "RESIZE_NEAREST": tf.raw_ops.ResizeNearestNeighbor,
        "RESIZE_BILINEAR": tf.raw_ops.ResizeBilinear,
    }
    for op, function in functions.items():
        for size in ((9, 10), (3, 2), (1, 1), (5, 12), (10, 4)):
            for corners, centers in ((False, False), (True, False), (False, True)):
                x = _x(2, 5, 4, 3)
                y = function(images=x, size=size, align_corners=corners, half_pixel_centers=centers)
                yield _case(op, [x], y, (int(corners), int(centers)))


def _matmuls():
    for a, b in (((2, 3, 4), (2, 4, 5)), ((3, 4), (2, 4, 2)), ((2, 1, 2, 3), (3, 3, 4))):
        for swap_a in (0, 1):
            for swap_b in (0, 1):
                p, q = _x(*a), _x(*b)
                inputs = p.swapaxes(-1, -2) if swap_a else p, q.swapaxes(-1, -2) if swap_b else q
                inputs = [np.ascontiguousarray(m) for m in inputs]
                yield _case("BATCH_MATMUL", inputs, keras.ops.matmul(p, q), (swap_a, swap_b))


def _casts():
    x = np.array([1.9, -1.9, 3e9, -3e9, np.nan, np.inf, -np.inf, 2147483520], np.float32)
    ends = np.iinfo(np.int32)
    y = np.array([1, -1, ends.max, ends.min, 0, ends.max, ends.min, 2147483520], np.int32)
    yield _case("CAST", [x], y)
    yield _case("CAST", [y], y.astype(np.float32))
    yield _case("CAST", [y], y)


CASES = [
    *_binaries(),
    *_unaries(),
    *_pools(),
    *_reductions(),
    *_softmaxes(),
    *_moves(),
    *_resizes(),
    *_matmuls(),
    *_casts(),
]
"""All operations but PACKED."""
