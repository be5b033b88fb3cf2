"""Operators over windows, axes and images of a converted graph as .kbits nodes."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from tflite_export import kbits_generated as schema
from tflite_export.kbits.translation import Translation

_OP = tflite.BuiltinOperator

_POOLS = {
    _OP.MAX_POOL_2D: schema.Op.MAX_POOL,
    _OP.AVERAGE_POOL_2D: schema.Op.AVERAGE_POOL,
}

_REDUCTIONS = {
    _OP.MEAN: schema.Op.REDUCE_MEAN,
    _OP.SUM: schema.Op.REDUCE_SUM,
    _OP.REDUCE_MAX: schema.Op.REDUCE_MAX,
    _OP.REDUCE_MIN: schema.Op.REDUCE_MIN,
    _OP.REDUCE_PROD: schema.Op.REDUCE_PROD,
}

_RESIZES = {
    _OP.RESIZE_NEAREST_NEIGHBOR: schema.Op.RESIZE_NEAREST,
    _OP.RESIZE_BILINEAR: schema.Op.RESIZE_BILINEAR,
}


def pool(t: Translation, op: tflite.OperatorT) -> None:
    """Pooling; SAME padding as numbers, since the shapes are fixed."""
    options = op.builtinOptions
    kernel = (options.filterHeight, options.filterWidth)
    strides = (options.strideH, options.strideW)
    pads = []
    for axis in (0, 1):
        size = t.shape(int(op.inputs[0]))[1 + axis]
        total = (-(-size // strides[axis]) - 1) * strides[axis] + kernel[axis] - size
        total = max(total, 0) if options.padding == tflite.Padding.SAME else 0
        pads += [total // 2, total - total // 2]
    ints = [*kernel, *strides, *pads]
    t.graph.write(_POOLS[t.code(op)], t.inputs(op, 1), t.output(op), ints, t.clamp(op))


def reduction(t: Translation, op: tflite.OperatorT) -> None:
    """A reduction over constant axes."""
    rank = len(t.shape(int(op.inputs[0])))
    axes = sorted({int(a) % rank for a in t.constant(op, 1).reshape(-1)})
    t.graph.write(_REDUCTIONS[t.code(op)], t.inputs(op, 1), t.output(op), axes)


def resize(t: Translation, op: tflite.OperatorT) -> None:
    """Resizing of images; the size is the output's."""
    options = op.builtinOptions
    ints = [int(options.alignCorners), int(options.halfPixelCenters)]
    if all(ints):
        raise t.error(op, "aligned corners or half pixel centers", "both")
    t.graph.write(_RESIZES[t.code(op)], t.inputs(op, 1), t.output(op), ints)


def matrix_product(t: Translation, op: tflite.OperatorT) -> None:
    """BATCH_MATMUL."""
    options = op.builtinOptions
    ints = [int(options.adjX), int(options.adjY)]
    t.graph.write(schema.Op.BATCH_MATMUL, t.inputs(op, 2), t.output(op), ints)


def unit_length(t: Translation, op: tflite.OperatorT) -> None:
    """L2_NORMALIZATION along the last axis: x / sqrt(max(sum(x^2), 1e-12))."""
    (x,) = t.inputs(op, 1)
    shape = t.graph.shape(x)
    short = (*shape[:-1], 1)
    square = t.graph.compute(schema.Op.SQUARE, [x], shape)
    total = t.graph.compute(schema.Op.REDUCE_SUM, [square], short, [len(shape) - 1])
    floor = t.graph.constant(np.float32(1e-12))
    total = t.graph.compute(schema.Op.MAXIMUM, [total, floor], short)
    scale = t.graph.compute(schema.Op.RSQRT, [total], short)
    t.graph.write(schema.Op.MUL, [x, scale], t.output(op), floats=t.clamp(op))


TRANSLATORS = {
    **dict.fromkeys(_POOLS, pool),
    **dict.fromkeys(_REDUCTIONS, reduction),
    **dict.fromkeys(_RESIZES, resize),
    _OP.BATCH_MATMUL: matrix_product,
    _OP.L2_NORMALIZATION: unit_length,
}
"""Function that translates each operator."""
