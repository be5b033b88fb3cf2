"""What the file's form of a layer reads of the tensor that the Keras layer reads.

A zero padding in front of a convolution may be part of the convolution in the file, which then
reads the unpadded tensor; and a convolution over one axis has a second one of size 1.
"""

from __future__ import annotations

import keras
import numpy as np

from tflite_export.collect import Collected
from tflite_export.layer import PackedLayer
from tflite_export.verification.result import VerificationError

Pads = tuple[tuple[int, int], tuple[int, int]]


def as_read(collected: Collected, layer: PackedLayer, x: np.ndarray) -> np.ndarray:
    """`x`, an input of the Keras layer, as `layer`, its form in a file, reads it.

    Raises:
        VerificationError: if the two do not pad alike.
    """
    if layer.op == "embedding":
        return x.astype(np.int32)
    if layer.op == "dense":
        return x
    if x.ndim == 3:
        x = x[:, None]
    (top, bottom), (left, right) = folded_pads(collected.packed, layer, x.shape[1:3])
    rows, columns = x.shape[1:3]
    inner = x[:, top : rows - bottom, left : columns - right]
    if np.count_nonzero(x) != np.count_nonzero(inner):
        raise VerificationError(
            f"layer '{collected.path}': expected zeros around its input, which the file leaves "
            "out, got other values"
        )
    return inner


def as_fed(collected: Collected, layer: PackedLayer, x: np.ndarray) -> np.ndarray:
    """`x`, what `layer` reads in a file, as the Keras layer reads it: the reverse of `as_read`."""
    if layer.op == "embedding":
        return x.astype(np.int32)
    if layer.op == "dense":
        return x
    rows, columns = folded_pads(collected.packed, layer, x.shape[1:3])
    x = np.pad(x, ((0, 0), rows, columns, (0, 0)))
    flat = isinstance(collected.layer, keras.layers.Conv1D | keras.layers.DepthwiseConv1D)
    return x[:, 0] if flat else x


def folded_pads(own: PackedLayer, layer: PackedLayer, size: tuple[int, int]) -> Pads:
    """How much more `layer` pads than `own`, its form in the model, for inputs of `size`."""
    if own.padding == layer.padding:
        return (0, 0), (0, 0)
    # What the file leaves out of the input is part of the size that the model pads further.
    before, after = explicit_pads(own, size), explicit_pads(layer, size)
    pads = tuple(
        tuple(b - a for a, b in zip(*pair, strict=True)) for pair in zip(before, after, strict=True)
    )
    if min(min(pair) for pair in pads) < 0:
        raise VerificationError(
            f"layer '{own.name}': expected at least the padding {before} in the file, got {after}"
        )
    return pads


def explicit_pads(layer: PackedLayer, size: tuple[int, int]) -> Pads:
    """`((top, bottom), (left, right))` that `layer` pads inputs of `size` by."""
    if layer.padding == "valid":
        return (0, 0), (0, 0)
    if layer.padding != "same":
        return tuple(map(tuple, layer.padding))
    pads = []
    axes = zip(size, layer.kernel_size, layer.strides, layer.dilations, strict=True)
    for length, kernel, stride, dilation in axes:
        reach = (kernel - 1) * dilation + 1
        total = max(0, (-(-length // stride) - 1) * stride + reach - length)
        pads.append((total // 2, total - total // 2))
    return tuple(pads)
