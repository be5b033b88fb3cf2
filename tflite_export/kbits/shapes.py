"""Operators that move elements in a converted graph as .kbits nodes."""

from __future__ import annotations

import math

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from tflite_export import kbits_generated as schema
from tflite_export.kbits.translation import Translation

_OP = tflite.BuiltinOperator


def reshape(t: Translation, op: tflite.OperatorT) -> None:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: the new shape is the output's."""
    t.graph.write(schema.Op.RESHAPE, t.inputs(op, 1), t.output(op))


def transpose(t: Translation, op: tflite.OperatorT) -> None:
    """TRANSPOSE."""
    order = t.constant(op, 1).reshape(-1)
    t.graph.write(schema.Op.TRANSPOSE, t.inputs(op, 1), t.output(op), order)


def slice_(t: Translation, op: tflite.OperatorT) -> None:
    """SLICE: first indices and sizes; the sizes are the output's."""
    first = [int(i) for i in t.constant(op, 1).reshape(-1)]
    t.graph.write(schema.Op.SLICE, t.inputs(op, 1), t.output(op), first + [1] * len(first))


def strided_slice(t: Translation, op: tflite.OperatorT) -> None:
    """STRIDED_SLICE with its masks, by NumPy's own slicing of the indices of each axis."""
    (x,) = t.inputs(op, 1)
    options, source = op.builtinOptions, t.graph.shape(x)
    begin, end, step = (t.constant(op, i).reshape(-1) for i in (1, 2, 3))
    if options.ellipsisMask or options.newAxisMask or getattr(options, "offset", False):
        raise t.error(op, "no ellipsis, new axis or offset", "one")
    firsts, steps, shape = [], [], []
    for axis, length in enumerate(source):
        indices = range(length)
        if axis < len(begin) and options.shrinkAxisMask >> axis & 1:
            at = int(begin[axis])
            indices = indices[at : at + 1 or None]
        elif axis < len(begin):
            first = None if options.beginMask >> axis & 1 else int(begin[axis])
            last = None if options.endMask >> axis & 1 else int(end[axis])
            indices = indices[first : last : int(step[axis])]
        if not len(indices):
            raise t.error(op, "a slice with elements", f"none along axis {axis}")
        firsts.append(indices[0])
        steps.append(indices.step)
        shape.append(len(indices))
    index = int(op.outputs[0])
    y = t.graph.compute(schema.Op.SLICE, [x], shape, firsts + steps)
    t.is_same(index, t.graph.reshaped(y, t.shape(index)))


def split(t: Translation, op: tflite.OperatorT) -> None:
    """SPLIT and SPLIT_V: a slice for each part."""
    at_end = t.code(op) == _OP.SPLIT_V
    axis, x = t.constant(op, 2 if at_end else 0), t.tensor(int(op.inputs[0 if at_end else 1]))
    _slices(t, op, x, int(axis.reshape(-1)[0]), keep=True)


def unpack(t: Translation, op: tflite.OperatorT) -> None:
    """UNPACK: slices of length 1 without that axis."""
    (x,) = t.inputs(op, 1)
    _slices(t, op, x, op.builtinOptions.axis, keep=False)


def _slices(t: Translation, op: tflite.OperatorT, x: int, axis: int, keep: bool) -> None:
    source = t.graph.shape(x)
    axis %= len(source)
    at = 0
    for output in (int(i) for i in op.outputs):
        shape = list(source)
        shape[axis] = t.shape(output)[axis] if keep else 1
        first = [0] * len(source)
        first[axis] = at
        y = t.graph.compute(schema.Op.SLICE, [x], shape, first + [1] * len(source))
        t.is_same(output, t.graph.reshaped(y, t.shape(output)))
        at += shape[axis]


def concatenation(t: Translation, op: tflite.OperatorT) -> None:
    """CONCATENATION; a fused activation becomes a node."""
    inputs, shape = t.inputs(op, len(op.inputs)), t.shape(int(op.outputs[0]))
    axis = op.builtinOptions.axis % len(shape)
    y = t.graph.compute(schema.Op.CONCATENATION, inputs, shape, [axis])
    if t.clamp(op):
        y = t.graph.compute(schema.Op.CLAMP, [y], shape, floats=t.clamp(op))
    t.is_same(int(op.outputs[0]), y)


def pack(t: Translation, op: tflite.OperatorT) -> None:
    """PACK: inputs with a new axis, one after the other."""
    shape = t.shape(int(op.outputs[0]))
    axis = op.builtinOptions.axis % len(shape)
    part = (*shape[:axis], 1, *shape[axis + 1 :])
    parts = [t.graph.reshaped(x, part) for x in t.inputs(op, len(op.inputs))]
    t.graph.write(schema.Op.CONCATENATION, parts, t.output(op), [axis])


def pad(t: Translation, op: tflite.OperatorT) -> None:
    """PAD with zeros and PADV2 with a constant."""
    value = t.constant(op, 2).reshape(-1)[0] if t.code(op) == _OP.PADV2 else 0.0
    pads = t.constant(op, 1).reshape(-1)
    t.graph.write(schema.Op.PAD, t.inputs(op, 1), t.output(op), pads, [float(value)])


def mirror_pad(t: Translation, op: tflite.OperatorT) -> None:
    """MIRROR_PAD."""
    ints = [int(op.builtinOptions.mode), *t.constant(op, 1).reshape(-1)]
    t.graph.write(schema.Op.MIRROR_PAD, t.inputs(op, 1), t.output(op), ints)


def repeat(t: Translation, op: tflite.OperatorT) -> None:
    """TILE and BROADCAST_TO: axes that the output has more are 1 before."""
    (x,) = t.inputs(op, 1)
    shape = t.graph.shape(x)
    missing = len(t.shape(int(op.outputs[0]))) - len(shape)
    x = t.graph.reshaped(x, (*[1] * missing, *shape))
    t.graph.write(schema.Op.TILE, [x], t.output(op))


def _rearranged(t: Translation, op: tflite.OperatorT, x: int, shape, order) -> None:
    """x as `shape`, its axes in another order, as the output's shape."""
    x = t.graph.reshaped(x, shape)
    x = t.graph.compute(schema.Op.TRANSPOSE, [x], [shape[i] for i in order], order)
    index = int(op.outputs[0])
    t.is_same(index, t.graph.reshaped(x, t.shape(index)))


def depth_to_space(t: Translation, op: tflite.OperatorT) -> None:
    """DEPTH_TO_SPACE: channels (row, column, channel) become pixels."""
    (x,) = t.inputs(op, 1)
    n, h, w, c = t.graph.shape(x)
    b = op.builtinOptions.blockSize
    _rearranged(t, op, x, (n, h, w, b, b, c // (b * b)), (0, 1, 3, 2, 4, 5))


def space_to_depth(t: Translation, op: tflite.OperatorT) -> None:
    """SPACE_TO_DEPTH, the reverse."""
    (x,) = t.inputs(op, 1)
    n, h, w, c = t.graph.shape(x)
    b = op.builtinOptions.blockSize
    _rearranged(t, op, x, (n, h // b, b, w // b, b, c), (0, 1, 3, 2, 4, 5))


def space_to_batch(t: Translation, op: tflite.OperatorT) -> None:
    """SPACE_TO_BATCH_ND: pad, then every b-th pixel becomes part of an image of its own.

    The converter makes dilated convolutions of it.
    """
    (x,) = t.inputs(op, 1)
    blocks, pads = _blocks(t, op), t.constant(op, 2).reshape(-1, 2)
    axes = len(blocks)
    batch, *image = t.graph.shape(x)
    around = [[0, 0], *pads.tolist(), *[[0, 0]] * (len(image) - axes)]
    shape = [n + sum(pair) for n, pair in zip([batch, *image], around, strict=True)]
    if pads.any():
        x = t.graph.compute(schema.Op.PAD, [x], shape, np.ravel(around), [0.0])
    pairs = [(n // b, b) for n, b in zip(shape[1:], blocks, strict=False)]
    apart = [batch, *np.ravel(pairs), *shape[1 + axes :]]
    order = [2 + 2 * i for i in range(axes)] + [0] + [1 + 2 * i for i in range(axes)]
    _rearranged(t, op, x, apart, order + list(range(1 + 2 * axes, len(apart))))


def batch_to_space(t: Translation, op: tflite.OperatorT) -> None:
    """BATCH_TO_SPACE_ND, the reverse: interleave, then crop."""
    (x,) = t.inputs(op, 1)
    blocks, crops = _blocks(t, op), t.constant(op, 2).reshape(-1, 2)
    axes, index = len(blocks), int(op.outputs[0])
    batch, *image = t.graph.shape(x)
    apart = [*blocks, batch // math.prod(blocks), *image]
    order = [axes]
    for axis in range(axes):
        order += [axes + 1 + axis, axis]
    order += range(2 * axes + 1, len(apart))
    x = t.graph.reshaped(x, apart)
    x = t.graph.compute(schema.Op.TRANSPOSE, [x], [apart[i] for i in order], order)
    sizes = [n * b for n, b in zip(image, blocks, strict=False)]
    x = t.graph.reshaped(x, (apart[axes], *sizes, *image[axes:]))
    if crops.any():
        first = [0, *crops[:, 0], *[0] * (len(image) - axes)]
        x = t.graph.compute(schema.Op.SLICE, [x], t.shape(index), first + [1] * len(first))
    t.is_same(index, x)


def _blocks(t: Translation, op: tflite.OperatorT) -> list[int]:
    return [int(n) for n in t.constant(op, 1).reshape(-1)]


TRANSLATORS = {
    _OP.RESHAPE: reshape,
    _OP.SQUEEZE: reshape,
    _OP.EXPAND_DIMS: reshape,
    _OP.TRANSPOSE: transpose,
    _OP.SLICE: slice_,
    _OP.STRIDED_SLICE: strided_slice,
    _OP.SPLIT: split,
    _OP.SPLIT_V: split,
    _OP.UNPACK: unpack,
    _OP.CONCATENATION: concatenation,
    _OP.PACK: pack,
    _OP.PAD: pad,
    _OP.PADV2: pad,
    _OP.MIRROR_PAD: mirror_pad,
    _OP.TILE: repeat,
    _OP.BROADCAST_TO: repeat,
    _OP.DEPTH_TO_SPACE: depth_to_space,
    _OP.SPACE_TO_DEPTH: space_to_depth,
    _OP.SPACE_TO_BATCH_ND: space_to_batch,
    _OP.BATCH_TO_SPACE_ND: batch_to_space,
}
"""Function that translates each operator."""
