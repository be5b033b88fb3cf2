"""What the attributes and shapes of a node of a .kbits file must be (docs/kbits_format.md)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tflite_export.in_numpy.graph import MAX_RANK, Graph, Node, Tensor

Shape = tuple[int, ...]
Check = Callable[[Node, list[Shape], Shape], None]

BINARY = ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "POW", "SQUARED_DIFFERENCE")
UNARY = (
    *("ELU", "LOGISTIC", "TANH", "HARD_SWISH", "EXP", "LOG", "SQRT", "RSQRT", "NEG", "ABS"),
    *("SQUARE", "SIN", "COS", "FLOOR", "CEIL", "ROUND", "SIGN", "LOG_SOFTMAX"),
)
POOLS = ("MAX_POOL", "AVERAGE_POOL")
REDUCTIONS = ("REDUCE_MEAN", "REDUCE_SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD")
RESIZES = ("RESIZE_NEAREST", "RESIZE_BILINEAR")
ANY_TYPE = ("RESHAPE", "TRANSPOSE", "SLICE", "CONCATENATION", "TILE")
CLAMPED = (*BINARY, *POOLS)

_ANY = -1

_COUNTS: dict[str, tuple[int, int, int]] = {
    **dict.fromkeys(BINARY, (2, 0, 2)),
    **dict.fromkeys(UNARY, (1, 0, 0)),
    **dict.fromkeys(POOLS, (1, 8, 2)),
    **dict.fromkeys(REDUCTIONS, (1, _ANY, 0)),
    **dict.fromkeys(RESIZES, (1, 2, 0)),
    **{"PACKED": (1, 0, 0), "PRELU": (2, 0, 0), "CLAMP": (1, 0, 2), "LEAKY_RELU": (1, 0, 1)},
    **{"GELU": (1, 1, 0), "SOFTMAX": (1, 0, 1), "RESHAPE": (1, 0, 0), "TRANSPOSE": (1, _ANY, 0)},
    **{"SLICE": (1, _ANY, 0), "CONCATENATION": (_ANY, 1, 0), "PAD": (1, _ANY, 1)},
    **{"MIRROR_PAD": (1, _ANY, 0), "TILE": (1, 0, 0), "BATCH_MATMUL": (2, 2, 0)},
    "CAST": (1, 0, 0),
}
"""Inputs, ints and floats of each operation; the floats of clamped ones may be absent."""


def check_nodes(graph: Graph, packed_shape: Callable[[Node, Tensor], Shape]) -> None:
    """Raise unless every node fits its tensors.

    Args:
        packed_shape: shape of the output of a PACKED node for an input; raises ValueError if that
            does not fit the layer.

    Raises:
        ValueError: names the node, what was expected and what came.
    """
    for node in graph.nodes:
        _check_attributes(node)
        inputs = [graph.tensors[i] for i in node.inputs]
        output = graph.tensors[node.output]
        _check_types(node, inputs, output)
        if node.op == "PACKED":
            _expect(node, output.shape, packed_shape(node, inputs[0]))
        else:
            _CHECKS.get(node.op, _same_shape)(node, [t.shape for t in inputs], output.shape)


def _check_attributes(node: Node) -> None:
    inputs, ints, floats = _COUNTS[node.op]
    if len(node.inputs) != inputs and (inputs != _ANY or not node.inputs):
        raise node.error(f"{max(inputs, 1)} inputs", len(node.inputs))
    if ints not in (_ANY, len(node.ints)) or len(node.ints) > 2 * MAX_RANK + 1:
        raise node.error(f"{ints} ints", node.ints)
    if len(node.floats) != floats and not (node.op in CLAMPED and not node.floats):
        raise node.error(f"{floats} floats", node.floats)
    if any(map(math.isnan, node.floats)) or list(node.floats) != sorted(node.floats):
        raise node.error("numbers in rising order as floats", node.floats)


def _check_types(node: Node, inputs: list[Tensor], output: Tensor) -> None:
    if node.op in ("PACKED", "CAST"):
        return  # which of both is for the layer to say; casts take and give any
    types = {tensor.dtype for tensor in (*inputs, output)}
    if len(types) > 1 or not (types == {np.float32} or node.op in ANY_TYPE):
        raise node.error("tensors of one type that it takes", [t.__name__ for t in types])


def _expect(node: Node, got: Shape, expected: Shape) -> None:
    if got != tuple(expected):
        raise node.error(f"an output of shape {tuple(expected)}", got)


def _same_shape(node: Node, x: list[Shape], y: Shape) -> None:
    _expect(node, y, x[0])


def _broadcast(node: Node, x: list[Shape], y: Shape) -> None:
    try:
        expected = np.broadcast_shapes(*x)
    except ValueError:
        raise node.error("shapes that broadcast", x) from None
    _expect(node, y, expected)


def _gelu(node: Node, x: list[Shape], y: Shape) -> None:
    _switches(node)
    _same_shape(node, x, y)


def _switches(node: Node) -> None:
    if not set(node.ints) <= {0, 1}:
        raise node.error("0 or 1 as ints", node.ints)


def _pool(node: Node, x: list[Shape], y: Shape) -> None:
    _images(node, x[0])
    expected = [x[0][0], 0, 0, x[0][3]]
    for axis in range(2):
        size, kernel, stride = x[0][1 + axis], node.ints[axis], node.ints[2 + axis]
        before, after = node.ints[4 + 2 * axis : 6 + 2 * axis]
        if not (kernel > 0 and stride > 0 and 0 <= before < kernel and after >= 0):
            raise node.error("positive sizes, and padding smaller than the kernel", node.ints)
        out = (size + before + after - kernel) // stride + 1
        if size + before + after < kernel or (out - 1) * stride - before >= size:
            raise node.error("windows with a pixel inside", node.ints)
        expected[1 + axis] = out
    _expect(node, y, tuple(expected))


def _images(node: Node, x: Shape) -> None:
    if len(x) != 4:
        raise node.error("NHWC images", x)


def _reduce(node: Node, x: list[Shape], y: Shape) -> None:
    axes = set(node.ints)
    if sorted(axes) != list(node.ints) or not axes <= set(range(len(x[0]))):
        raise node.error(f"rising axes below {len(x[0])}", node.ints)
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(x[0]))
    dropped = tuple(n for axis, n in enumerate(x[0]) if axis not in axes)
    _expect(node, y, kept if len(y) == len(x[0]) else dropped)


def _softmax(node: Node, x: list[Shape], y: Shape) -> None:
    if not x[0]:
        raise node.error("an input of rank 1 or more", x[0])
    if not all(0 < beta < math.inf for beta in node.floats):
        raise node.error("a positive beta", node.floats)
    _same_shape(node, x, y)


def _reshape(node: Node, x: list[Shape], y: Shape) -> None:
    if math.prod(x[0]) != math.prod(y):
        raise node.error(f"{math.prod(x[0])} elements", y)


def _transpose(node: Node, x: list[Shape], y: Shape) -> None:
    if sorted(node.ints) != list(range(len(x[0]))):
        raise node.error(f"each of {len(x[0])} axes once", node.ints)
    _expect(node, y, tuple(x[0][axis] for axis in node.ints))


def _slice(node: Node, x: list[Shape], y: Shape) -> None:
    rank = len(x[0])
    if len(node.ints) != 2 * rank or len(y) != rank:
        raise node.error(f"{2 * rank} ints and an output of rank {rank}", (node.ints, y))
    for n, first, step, count in zip(x[0], node.ints, node.ints[rank:], y, strict=False):
        if step == 0 or not (0 <= first < n and 0 <= first + step * (count - 1) < n):
            raise node.error(f"indices inside of {x[0]}", node.ints)


def _concatenation(node: Node, x: list[Shape], y: Shape) -> None:
    axis = node.ints[0]
    if not 0 <= axis < len(y):
        raise node.error(f"an axis below {len(y)}", axis)
    rest = y[:axis] + y[axis + 1 :]
    if any(len(s) != len(y) or s[:axis] + s[axis + 1 :] != rest for s in x):
        raise node.error(f"inputs that fit {y} along all axes but {axis}", x)
    _expect(node, y, (*y[:axis], sum(s[axis] for s in x), *y[axis + 1 :]))


def _pad(node: Node, x: list[Shape], y: Shape) -> None:
    mirror = int(node.op == "MIRROR_PAD")
    if len(node.ints) != 2 * len(x[0]) + mirror:
        raise node.error(f"{2 * len(x[0]) + mirror} ints", node.ints)
    mode = node.ints[0] if mirror else 0
    pads = [node.ints[i : i + 2] for i in range(mirror, len(node.ints), 2)]
    most = [n - 1 + mode if mirror else 2**31 for n in x[0]]
    fits = [0 <= p <= m for pad, m in zip(pads, most, strict=True) for p in pad]
    if mode not in (0, 1) or not all(fits):
        raise node.error("a mode of 0 or 1 and pads that the image can fill", node.ints)
    _expect(node, y, tuple(n + sum(pad) for n, pad in zip(x[0], pads, strict=True)))


def _tile(node: Node, x: list[Shape], y: Shape) -> None:
    if len(y) != len(x[0]) or any(m % n for n, m in zip(x[0], y, strict=True)):
        raise node.error(f"multiples of {x[0]}", y)


def _resize(node: Node, x: list[Shape], y: Shape) -> None:
    _images(node, x[0])
    _images(node, y)
    _switches(node)
    if sum(node.ints) > 1:
        raise node.error("aligned corners or half pixel centers", node.ints)
    _expect(node, y, (x[0][0], *y[1:3], x[0][3]))


def _matmul(node: Node, x: list[Shape], y: Shape) -> None:
    _switches(node)
    if min(map(len, x)) < 2:
        raise node.error("matrices", x)
    a, b = (s[:-2] + s[:-3:-1] if swap else s for s, swap in zip(x, node.ints, strict=True))
    if a[-1] != b[-2]:
        raise node.error("matrices that can be multiplied", x)
    try:
        batch = np.broadcast_shapes(a[:-2], b[:-2])
    except ValueError:
        raise node.error("shapes that broadcast", x) from None
    _expect(node, y, (*batch, a[-2], b[-1]))


_CHECKS: dict[str, Check] = {
    **dict.fromkeys((*BINARY, "PRELU"), _broadcast),
    **dict.fromkeys(POOLS, _pool),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(RESIZES, _resize),
    **dict.fromkeys(("SOFTMAX", "LOG_SOFTMAX"), _softmax),
    **dict.fromkeys(("PAD", "MIRROR_PAD"), _pad),
    "GELU": _gelu,
    "RESHAPE": _reshape,
    "TRANSPOSE": _transpose,
    "SLICE": _slice,
    "CONCATENATION": _concatenation,
    "TILE": _tile,
    "BATCH_MATMUL": _matmul,
}
"""All others have an output of the shape of their input."""
