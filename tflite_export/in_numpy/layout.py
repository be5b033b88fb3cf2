"""The operations of .kbits files that move values, in NumPy (docs/kbits_format.md).

A function takes the node, the shape of its output, and its inputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tflite_export.in_numpy.graph import Node

Mover = Callable[..., np.ndarray]

_F32 = np.float32


def _slice(node: Node, shape, x: np.ndarray) -> np.ndarray:
    firsts, steps = node.ints[: x.ndim], node.ints[x.ndim :]
    indices = [f + s * np.arange(n) for f, s, n in zip(firsts, steps, shape, strict=True)]
    return x[np.ix_(*indices)] if indices else x


def _pad(node: Node, shape, x: np.ndarray) -> np.ndarray:
    return np.pad(x, _pairs(node.ints), constant_values=_F32(node.floats[0]))


def _mirror_pad(node: Node, shape, x: np.ndarray) -> np.ndarray:
    return np.pad(x, _pairs(node.ints[1:]), mode=("reflect", "symmetric")[node.ints[0]])


def _pairs(ints: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(zip(ints[::2], ints[1::2], strict=True))


def _tile(node: Node, shape, x: np.ndarray) -> np.ndarray:
    return np.tile(x, [m // n for n, m in zip(x.shape, shape, strict=True)])


def _scale(node: Node, size: int, out: int) -> np.float32:
    if node.ints[0] and out > 1:
        return _F32(size - 1) / _F32(out - 1)
    return _F32(size) / _F32(out)


def _nearest(node: Node, shape, x: np.ndarray) -> np.ndarray:
    rows, columns = (_nearest_indices(node, x.shape[axis], shape[axis]) for axis in (1, 2))
    return x[:, rows[:, None], columns]


def _nearest_indices(node: Node, size: int, out: int) -> np.ndarray:
    places = (np.arange(out, dtype=_F32) + _F32(node.ints[1] / 2)) * _scale(node, size, out)
    # In float64 adding a half rounds nothing, so that it is the next whole number for sure.
    index = np.floor(places.astype(np.float64) + (0.5 if node.ints[0] else 0.0))
    return np.clip(index.astype(np.int64), 0, size - 1)


def _bilinear(node: Node, shape, x: np.ndarray) -> np.ndarray:
    (top, bottom, down), (left, right, across) = (
        _neighbours(node, x.shape[axis], shape[axis]) for axis in (1, 2)
    )
    down, across = down[:, None, None], across[:, None]

    def blended(rows):
        low, high = x[:, rows][:, :, left], x[:, rows][:, :, right]
        return low + (high - low) * across

    upper, lower = blended(top), blended(bottom)
    return upper + (lower - upper) * down


def _neighbours(node: Node, size: int, out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two indices for each output index, and the weight of the second."""
    places, half = np.arange(out, dtype=_F32), _F32(0.5)
    scale = _scale(node, size, out)
    places = (places + half) * scale - half if node.ints[1] else places * scale
    low, high = np.floor(places), np.ceil(places)
    ends = (np.clip(index.astype(np.int64), 0, size - 1) for index in (low, high))
    return (*ends, places - low)


def cast(x: np.ndarray, dtype: type) -> np.ndarray:
    """Float to int32 goes toward 0, and to the ends of int32 beyond them; NaN is 0."""
    if dtype != np.int32 or x.dtype == np.int32:
        return x.astype(dtype)
    ends = np.iinfo(np.int32)
    whole = np.trunc(np.where(np.isnan(x), 0, x).astype(np.float64))
    return np.clip(whole, ends.min, ends.max).astype(np.int32)


MOVES: dict[str, Mover] = {
    "RESHAPE": lambda node, shape, x: x.reshape(shape),
    "TRANSPOSE": lambda node, shape, x: x.transpose(node.ints),
    "SLICE": _slice,
    "CONCATENATION": lambda node, shape, *x: np.concatenate(x, axis=node.ints[0]),
    "PAD": _pad,
    "MIRROR_PAD": _mirror_pad,
    "TILE": _tile,
    "RESIZE_NEAREST": _nearest,
    "RESIZE_BILINEAR": _bilinear,
}
