"""Float layers of a converted graph as blobs with float weights and a float input."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from kerasbits.packed import FLOAT_BITS, FloatGrid, Floats, PackedTensor
from tflite_export import kbits_generated as schema
from tflite_export.blob.writer import write_blob
from tflite_export.kbits.translation import Translation
from tflite_export.layer import PackedLayer

_PADDINGS = {tflite.Padding.SAME: "same", tflite.Padding.VALID: "valid"}


def convolution(t: Translation, op: tflite.OperatorT) -> None:
    """CONV_2D; its kernel is [out, rows, columns, in]."""
    kernel = np.moveaxis(t.constant(op, 1), 0, -1)
    channels = t.shape(int(op.inputs[0]))[-1]
    _write(t, op, "conv2d", kernel, groups=channels // kernel.shape[2], **_window(op))


def depthwise(t: Translation, op: tflite.OperatorT) -> None:
    """DEPTHWISE_CONV_2D; its kernel is [1, rows, columns, channels x multiplier]."""
    channels = t.shape(int(op.inputs[0]))[-1]
    kernel = t.constant(op, 1)[0]
    _write(t, op, "depthwise_conv2d", kernel, groups=channels, **_window(op))


def dense(t: Translation, op: tflite.OperatorT) -> None:
    """FULLY_CONNECTED; its kernel is [out, in]. One that is computed is a matrix product."""
    if t.value(int(op.inputs[1])) is None:
        _product(t, op)
    else:
        _write(t, op, "dense", t.constant(op, 1).T)


def transposed(t: Translation, op: tflite.OperatorT) -> None:
    """TRANSPOSE_CONV; its inputs are output shape, kernel [out, rows, columns, in], x.

    It is a convolution of stride 1 over the input with zeros put in, with a flipped kernel. The
    forward convolution that it transposes has `before` rows of padding in front.
    """
    options = op.builtinOptions
    kernel = t.constant(op, 1)
    strides = (options.strideH, options.strideW)
    image, result = t.shape(int(op.inputs[2])), t.shape(int(op.outputs[0]))
    pads = []
    for axis in (0, 1):
        size, reach = kernel.shape[1 + axis], (image[1 + axis] - 1) * strides[axis] + 1
        total = max(reach + size - 1 - result[1 + axis], 0)
        before = size - 1 - (total // 2 if options.padding == tflite.Padding.SAME else 0)
        pads.append((before, result[1 + axis] + size - 1 - reach - before))
    flipped = np.transpose(kernel[:, ::-1, ::-1], (1, 2, 3, 0))
    geometry = {"input_dilations": strides, "padding": tuple(pads)}
    _write(t, op, "conv2d", flipped, x=2, bias=3, **geometry)


def embedding(t: Translation, op: tflite.OperatorT) -> None:
    """GATHER of rows of a constant table."""
    table, ids = t.value(int(op.inputs[0])), int(op.inputs[1])
    options = op.builtinOptions
    if table is None or table.dtype != np.float32 or options.axis or options.batchDims:
        raise t.error(op, "rows of a constant float32 table", "another kind of gathering")
    if t.dtype(ids) != np.int32:
        raise t.error(op, "int32 ids", t.dtype(ids))
    layer = _layer(t, op, "embedding", table.reshape(len(table), -1), channel_axis=0)
    blob = t.graph.blob(write_blob(layer))
    shape = (*t.shape(ids), layer.out_channels)
    y = t.graph.compute(schema.Op.PACKED, [t.tensor(ids)], shape, blob=blob)
    t.graph.tensors[y].type = schema.Type.FLOAT32
    index = int(op.outputs[0])
    t.is_same(index, t.graph.reshaped(y, t.shape(index)))


def write_packed(
    t: Translation, op: tflite.OperatorT, layer: PackedLayer, x: int, blob: int
) -> tuple[int, int]:
    """A node for one use of a packed layer; the tensors of the .kbits graph that it reads, writes.

    The converter's dense operator may flatten its input and shape its output in passing; the
    node does not, so reshapes are put around it.
    """
    index = int(op.outputs[0])
    if layer.op == "dense" and t.graph.shape(x)[-1:] != (layer.in_channels,):
        rows = _count(t.graph.shape(x)) // layer.in_channels
        x = t.graph.reshaped(x, (rows, layer.in_channels))
    shape = t.shape(index)
    if layer.op == "dense":
        shape = (*t.graph.shape(x)[:-1], layer.out_channels)
    if shape == t.shape(index):
        y = t.add_output(index)
        t.graph.write(schema.Op.PACKED, [x], y, blob=blob)
    else:
        y = t.graph.compute(schema.Op.PACKED, [x], shape, blob=blob)
        t.is_same(index, t.graph.reshaped(y, t.shape(index)))
    return x, y


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _write(t, op, kind, kernel, x=0, bias=2, **geometry) -> None:
    low, high = t.bounds(op)
    added = t.value(int(op.inputs[bias])) if bias < len(op.inputs) else None
    if added is None and bias < len(op.inputs) and op.inputs[bias] >= 0:
        raise t.error(op, "a constant bias", "a computed one")
    if added is not None and not added.any():
        added = None
    layer = _layer(t, op, kind, kernel, bias=added, act_min=low, act_max=high, **geometry)
    write_packed(t, op, layer, t.tensor(int(op.inputs[x])), t.graph.blob(write_blob(layer)))


def _layer(t, op, kind, kernel, channel_axis=-1, **parameters) -> PackedLayer:
    """A layer whose weights stay float."""
    if kernel.dtype != np.float32:
        raise t.error(op, "a float32 kernel", kernel.dtype)
    axis = channel_axis % kernel.ndim
    weight = PackedTensor(
        name="",  # of its blob: float layers have no path
        codes=np.zeros(0, np.uint16),
        bits=np.full(kernel.shape[axis], FLOAT_BITS),
        channel_axis=axis,
        encoding=Floats(np.ascontiguousarray(kernel)),
    )
    try:
        return PackedLayer(kind, weight, FloatGrid(), **parameters)
    except ValueError as error:
        raise t.error(op, "a layer that a blob can hold", error) from None


def _window(op) -> dict:
    options = op.builtinOptions
    return {
        "strides": (options.strideH, options.strideW),
        "dilations": (options.dilationHFactor, options.dilationWFactor),
        "padding": _PADDINGS[options.padding],
    }


def _product(t: Translation, op: tflite.OperatorT) -> None:
    """x times a computed matrix [out, in]."""
    x, matrix = t.inputs(op, 2)
    depth, index = t.graph.shape(matrix)[1], int(op.outputs[0])
    rows = t.graph.reshaped(x, (_count(t.graph.shape(x)) // depth, depth))
    shape = (t.graph.shape(rows)[0], t.graph.shape(matrix)[0])
    y = t.graph.compute(schema.Op.BATCH_MATMUL, [rows, matrix], shape, ints=[0, 1])
    if len(op.inputs) > 2 and op.inputs[2] >= 0:
        y = t.graph.compute(schema.Op.ADD, [y, t.tensor(int(op.inputs[2]))], shape)
    if t.clamp(op):
        y = t.graph.compute(schema.Op.CLAMP, [y], shape, floats=t.clamp(op))
    t.is_same(index, t.graph.reshaped(y, t.shape(index)))
