"""One packed layer in NumPy: what runs where the C library is missing, and its witness."""

from __future__ import annotations

import math

import numpy as np

from kerasbits.packed import FloatGrid, Floats
from tflite_export.blob.writer import read_blob
from tflite_export.in_numpy.exact_terms import input_terms, total, weight_terms
from tflite_export.in_numpy.whole_numbers import whole_layer
from tflite_export.layer import PackedLayer

_MAX_RANK = 8


class NumpyOp:
    """One packed layer, run by NumPy: `NativeOp` without the C library.

    Quantized layers are summed in whole numbers. Where offsets are, too, the sums are scaled in
    float32, and the C library gives the same bits. Else they are scaled in float64 and rounded
    once: both give the same float32, or neighbours where the value lies within float64 rounding of
    the middle of the two. Where input or weights are float, and in other depthwise layers, the C
    library sums K products in float32 and this class in float64; they agree within
    `(K + 4) * 2**-24 * |multiplier| * sum_k |x_k w_k|`.

    Embeddings are decoded in float32, as `PackedTensor.decode` does.

    Args:
        blob: bytes as `tflite_export.blob.writer.write_blob` makes them.

    Raises:
        ValueError: if the blob is broken.

    Example:
        >>> with NumpyOp(write_blob(layer)) as op:
        ...     y = op.run(x)
    """

    def __init__(self, blob: bytes):
        layer = self._layer = read_blob(blob)
        if layer.op == "embedding":
            self._table = layer.weight.decode()
            return
        bits = layer.spread(np.asarray(layer.weight.bits))
        self._kept = np.broadcast_to(bits, (layer.out_channels,)) > 0
        self._whole = whole_layer(layer)
        if self._whole:
            self._terms = [(np.ones(1), _taps(layer, self._whole.weights))]
            return
        terms = weight_terms(layer)
        # Where input or weights are float, no sum is whole, and one product will do.
        self._is_float = isinstance(layer.grid, FloatGrid) or _is_float(layer)
        if self._is_float:
            terms = [(np.ones((1, 1)), total(terms))]
        self._terms = [(scale[:, 0], _taps(layer, whole)) for scale, whole in terms]

    @property
    def takes_ids(self) -> bool:
        """Whether the layer is an embedding, whose input is whole numbers."""
        return self._open().op == "embedding"

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output for an input of `shape`."""
        layer = self._open()
        if min(shape, default=0) < 0 or max(shape, default=0) >= 2**31 or len(shape) > _MAX_RANK:
            raise ValueError(f"expected at most {_MAX_RANK} axes of 0 to 2**31 - 1, got {shape}")
        if layer.op == "embedding":
            if len(shape) == _MAX_RANK:
                raise ValueError(f"embedding: expected ids of rank 0 to 7, got rank {len(shape)}")
            return (*shape, self._table.shape[1])
        channels = layer.in_channels * layer.groups
        if layer.op == "dense":
            if not shape or shape[-1] != channels:
                raise ValueError(
                    f"dense: expected an input of rank 1 to {_MAX_RANK} with {channels} channels, "
                    f"got rank {len(shape)} with {shape[-1] if shape else -1}"
                )
            return (*shape[:-1], layer.out_channels)
        if len(shape) != 4 or shape[3] != channels:
            raise ValueError(
                f"convolution: expected an NHWC input with {channels} channels, got rank "
                f"{len(shape)} with {shape[-1] if shape else -1}"
            )
        sizes = [_axis(layer, axis, shape[axis + 1])[0] for axis in range(2)]
        return (shape[0], *sizes, layer.out_channels)

    def reserve(self, shape: tuple[int, ...]) -> None:
        """Check that an input of `shape` can be run; NumPy needs no memory in advance."""
        self.output_shape(shape)

    def run(self, x: np.ndarray) -> np.ndarray:
        """`y = layer(x)`; float32, dense `[..., in]`, convolutions NHWC, embeddings whole `[...]`.

        Raises:
            ValueError: a wrong shape, or an id that is no row of an embedding.
        """
        layer = self._open()
        x = np.asarray(x)
        shape = self.output_shape(x.shape)
        if layer.op == "embedding":
            return self._table[self._ids(x)]
        if layer.op == "dense":
            x = x.reshape(1, 1, math.prod(x.shape[:-1]), x.shape[-1])
        # Infinite and undefined inputs pass through as in C, without warnings.
        with np.errstate(all="ignore"):
            return self._finish(self._sums(x.astype(np.float32))).reshape(shape)

    def input_codes(self, x: np.ndarray) -> np.ndarray:
        """Codes of `x` under the input grid, uint16 of the same shape (0 for a float grid)."""
        grid = self._open().grid
        x = np.asarray(x, np.float32)
        return np.zeros(x.shape, np.uint16) if isinstance(grid, FloatGrid) else grid.codes(x)

    def close(self) -> None:
        """Release the memory of the op."""
        self._layer = self._terms = self._whole = self._table = None

    def __enter__(self) -> NumpyOp:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def _open(self) -> PackedLayer:
        if self._layer is None:
            raise ValueError("expected an open NumpyOp, got one that is closed")
        return self._layer

    def _ids(self, x: np.ndarray) -> np.ndarray:
        if x.dtype.kind not in "iu":
            raise ValueError(f"embedding: expected int32 ids, got {x.dtype} {x}")
        wrong = x[(x < 0) | (x >= len(self._table))]
        if wrong.size:
            raise ValueError(
                f"embedding: expected ids of 0 to {len(self._table) - 1}, got {wrong.flat[0]}"
            )
        return x

    def _sums(self, x: np.ndarray) -> np.ndarray:
        """Sums over k, float64, as (images, rows, columns, out); totals of whole numbers."""
        layer = self._layer
        if self._whole:
            image = _widened_and_padded(layer, self._whole.numbers(layer.grid, x))
            return _correlate(layer, image, self._terms[0][1], x.shape)
        terms = input_terms(layer.grid, x)
        if self._is_float:
            terms = [(np.float64(1), total(terms))]
        sums = 0.0
        for step, whole in terms:
            image = _widened_and_padded(layer, whole)
            for scale, taps in self._terms:
                sums = sums + (scale * step) * _correlate(layer, image, taps, x.shape)
        return sums

    def _finish(self, sums: np.ndarray) -> np.ndarray:
        layer = self._layer
        low, high = np.float32(layer.act_min), np.float32(layer.act_max)
        if self._whole:
            return np.clip(self._whole.scaled(sums, layer.bias), low, high)
        y = np.where(self._kept, sums, 0.0)
        if layer.multiplier is not None:
            y = y * layer.multiplier.astype(np.float64)
        if layer.bias is not None:
            y = y + layer.bias.astype(np.float64)
        return np.clip(y.astype(np.float32), low, high)


def _is_float(layer: PackedLayer) -> bool:
    return isinstance(layer.weight.encoding, Floats)


def _taps(layer: PackedLayer, rows: np.ndarray) -> np.ndarray:
    """Rows (O, K) as (kernel rows, kernel columns, groups, in, O / groups)."""
    taps = rows.T.reshape(*layer.kernel_size, layer.in_channels, layer.groups, -1)
    return np.ascontiguousarray(np.moveaxis(taps, 3, 2))


def _axis(layer: PackedLayer, axis: int, size: int) -> tuple[int, int, int]:
    """Output size of one axis, and its padding before and after."""
    stride = layer.strides[axis]
    reach = (layer.kernel_size[axis] - 1) * layer.dilations[axis] + 1
    if layer.padding == "same":
        out = -(-size // stride)
        missing = max((out - 1) * stride + reach - size, 0)
        return out, missing // 2, missing - missing // 2
    before, after = (0, 0) if layer.padding == "valid" else layer.padding[axis]
    spare = _widened(layer, axis, size) + before + after - reach
    if spare < 0:
        raise ValueError(
            f"convolution: expected an input that the kernel of {layer.kernel_size[axis]} fits "
            f"into, got {size}"
        )
    return spare // stride + 1, before, after


def _widened(layer: PackedLayer, axis: int, size: int) -> int:
    """Length of an axis with the zeros between its pixels."""
    return (size - 1) * layer.input_dilations[axis] + 1 if size else 0


def _widened_and_padded(layer: PackedLayer, image: np.ndarray) -> np.ndarray:
    """Zeros between and around the pixels: they add exactly 0, whatever the grid."""
    if layer.op == "dense":
        return image
    rows, columns = (_widened(layer, axis, image.shape[axis + 1]) for axis in range(2))
    top, bottom, left, right = (
        pad for axis in range(2) for pad in _axis(layer, axis, image.shape[axis + 1])[1:]
    )
    shape = image.shape[0], top + rows + bottom, left + columns + right, image.shape[3]
    if shape == image.shape:
        return image
    wide = np.zeros(shape)
    down, across = layer.input_dilations
    wide[:, top : top + rows : down, left : left + columns : across] = image
    return wide


def _correlate(layer: PackedLayer, image, taps, shape: tuple[int, ...]) -> np.ndarray:
    """Sums over the taps of a window, (images, rows, columns, out)."""
    if layer.op == "dense":
        return image @ taps[0, 0, 0]
    sizes = [_axis(layer, axis, shape[axis + 1])[0] for axis in range(2)]
    sums = np.zeros((shape[0], *sizes, layer.groups, layer.out_channels // layer.groups))
    for i, j in np.ndindex(*layer.kernel_size):
        part = image[:, _reach(layer, 0, i, sizes[0]), _reach(layer, 1, j, sizes[1])]
        sums += _grouped(part, taps[i, j])
    return sums.reshape(*sums.shape[:3], layer.out_channels)


def _reach(layer: PackedLayer, axis: int, tap: int, size: int) -> slice:
    """Pixels that a tap meets, one for each of `size` outputs."""
    first = tap * layer.dilations[axis]
    return slice(first, first + max(size - 1, 0) * layer.strides[axis] + 1, layer.strides[axis])


def _grouped(x: np.ndarray, tap: np.ndarray) -> np.ndarray:
    """(images, rows, columns, groups * in) times (groups, in, out), summed over in."""
    groups, channels, out = tap.shape
    if channels == 1:
        return x[..., None] * tap[:, 0]
    if groups == 1:
        return (x @ tap[0])[..., None, :]
    pixels = x.reshape(-1, groups, channels).transpose(1, 0, 2)
    return (pixels @ tap).transpose(1, 0, 2).reshape(*x.shape[:3], groups, out)
