"""The arithmetic operations of .kbits files in NumPy (docs/kbits_format.md).

A function takes the node and its inputs, and gives the output. Sums are taken in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tflite_export.in_numpy.graph import Node

Operator = Callable[..., np.ndarray]

_F32 = np.float32
_erfc = np.frompyfunc(math.erfc, 1, 1)


def clamped(node: Node, y: np.ndarray) -> np.ndarray:
    """`y` within the bounds that a node may have; NaN stays NaN."""
    return np.clip(y, _F32(node.floats[0]), _F32(node.floats[1])) if node.floats else y


def _binary(function: Operator) -> Operator:
    return lambda node, a, b: clamped(node, function(a, b))


def _unary(function: Operator) -> Operator:
    return lambda node, x: function(x)


def _logistic(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))  # never overflows
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _gelu(node: Node, x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    if node.ints[0]:
        inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
        return wide / 2 * (1 + np.tanh(inner))
    # 1 + erf(z) = erfc(-z), without losing small results
    return wide / 2 * _erfc(-wide / math.sqrt(2)).astype(np.float64)


def _hard_swish(x: np.ndarray) -> np.ndarray:
    return x * np.clip(x + _F32(3), _F32(0), _F32(6)) / _F32(6)


def _max_pool(node: Node, x: np.ndarray) -> np.ndarray:
    return clamped(node, np.maximum.reduce(_windows(node, x, -np.inf)))


def _average_pool(node: Node, x: np.ndarray) -> np.ndarray:
    inside = np.ones((1, *x.shape[1:3], 1))
    counts = sum(_windows(node, inside, 0))
    return clamped(node, (sum(_windows(node, x.astype(np.float64), 0)) / counts).astype(_F32))


def _windows(node: Node, x: np.ndarray, outside: float) -> list[np.ndarray]:
    """For each place in the window, the pixels there of all windows."""
    kernel, strides = node.ints[:2], node.ints[2:4]
    top, bottom, left, right = node.ints[4:]
    pads = ((0, 0), (top, bottom), (left, right), (0, 0))
    x = np.pad(x, pads, constant_values=outside)
    sizes = [(x.shape[1 + a] - kernel[a]) // strides[a] + 1 for a in range(2)]
    reach = [(sizes[a] - 1) * strides[a] + 1 for a in range(2)]
    return [
        x[:, i : i + reach[0] : strides[0], j : j + reach[1] : strides[1]]
        for i, j in np.ndindex(*kernel)
    ]


def _reduction(function: Operator) -> Operator:
    return lambda node, x: function(x.astype(np.float64), axis=node.ints)


def _softmax(node: Node, x: np.ndarray) -> np.ndarray:
    e = np.exp(_F32(node.floats[0]) * (x - x.max(axis=-1, keepdims=True)))
    return e / e.sum(axis=-1, keepdims=True, dtype=np.float64)


def _log_softmax(node: Node, x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64))


def _batch_matmul(node: Node, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (
        np.swapaxes(x, -1, -2).astype(np.float64) if swap else x.astype(np.float64)
        for x, swap in zip((a, b), node.ints, strict=True)
    )
    return a @ b


ARITHMETIC: dict[str, Operator] = {
    "ADD": _binary(np.add),
    "SUB": _binary(np.subtract),
    "MUL": _binary(np.multiply),
    "DIV": _binary(np.divide),
    "MAXIMUM": _binary(np.maximum),
    "MINIMUM": _binary(np.minimum),
    "POW": _binary(np.power),
    "SQUARED_DIFFERENCE": _binary(lambda a, b: (a - b) * (a - b)),
    "PRELU": lambda node, x, a: np.where(x >= 0, x, a * x),
    "CLAMP": clamped,
    "LEAKY_RELU": lambda node, x: np.where(x >= 0, x, _F32(node.floats[0]) * x),
    "ELU": _unary(lambda x: np.where(x >= 0, x, np.expm1(x))),
    "LOGISTIC": _unary(_logistic),
    "TANH": _unary(np.tanh),
    "HARD_SWISH": _unary(_hard_swish),
    "GELU": _gelu,
    "EXP": _unary(np.exp),
    "LOG": _unary(np.log),
    "SQRT": _unary(np.sqrt),
    "RSQRT": _unary(lambda x: _F32(1) / np.sqrt(x)),
    "NEG": _unary(np.negative),
    "ABS": _unary(np.abs),
    "SQUARE": _unary(np.square),
    "SIN": _unary(np.sin),
    "COS": _unary(np.cos),
    "FLOOR": _unary(np.floor),
    "CEIL": _unary(np.ceil),
    "ROUND": _unary(np.rint),
    "SIGN": _unary(np.sign),
    "MAX_POOL": _max_pool,
    "AVERAGE_POOL": _average_pool,
    "REDUCE_MEAN": _reduction(np.mean),
    "REDUCE_SUM": _reduction(np.sum),
    "REDUCE_MAX": _reduction(np.max),
    "REDUCE_MIN": _reduction(np.min),
    "REDUCE_PROD": _reduction(np.prod),
    "SOFTMAX": _softmax,
    "LOG_SOFTMAX": _log_softmax,
    "BATCH_MATMUL": _batch_matmul,
}
