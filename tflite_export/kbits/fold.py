"""Values of a converted graph that are known before it runs: shapes, and what follows."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from tflite_export.kbits.translation import Translation

_OP = tflite.BuiltinOperator


def fold(t: Translation, op: tflite.OperatorT) -> bool:
    """Work out what an operator gives if it is known already; whether it was.

    Operators on constants that are not listed here are left to run in the file.
    """
    code = t.code(op)
    if len(op.outputs) != 1:
        return False
    output = int(op.outputs[0])
    if code == _OP.SHAPE:
        t.know(output, t.shape(int(op.inputs[0])))
        return True
    values = [t.value(int(i)) for i in op.inputs]
    if code not in _FOLDS or any(value is None for value in values):
        return False
    t.know(output, _FOLDS[code](op, *values))
    return True


def _strided_slice(op, x, begin, end, step):
    options = op.builtinOptions
    parts = []
    for axis in range(len(begin)):
        if options.shrinkAxisMask >> axis & 1:
            parts.append(int(begin[axis]))
            continue
        first = None if options.beginMask >> axis & 1 else int(begin[axis])
        last = None if options.endMask >> axis & 1 else int(end[axis])
        parts.append(slice(first, last, int(step[axis])))
    return x[tuple(parts)]


def _slice(op, x, begin, size):
    ends = [None if n < 0 else b + n for b, n in zip(begin, size, strict=True)]
    return x[tuple(slice(int(b), e) for b, e in zip(begin, ends, strict=True))]


_FOLDS = {
    _OP.ADD: lambda op, a, b: a + b,
    _OP.SUB: lambda op, a, b: a - b,
    _OP.MUL: lambda op, a, b: a * b,
    _OP.FLOOR_DIV: lambda op, a, b: a // b,
    _OP.MAXIMUM: lambda op, a, b: np.maximum(a, b),
    _OP.MINIMUM: lambda op, a, b: np.minimum(a, b),
    _OP.REDUCE_PROD: lambda op, x, axes: x.prod(axis=tuple(np.ravel(axes))),
    _OP.CAST: lambda op, x: x,  # `know` converts
    _OP.RESHAPE: lambda op, x, *shape: x,
    _OP.SQUEEZE: lambda op, x: x,
    _OP.EXPAND_DIMS: lambda op, x, axis: x,
    _OP.PACK: lambda op, *parts: np.stack(parts, op.builtinOptions.axis),
    _OP.CONCATENATION: lambda op, *parts: np.concatenate(parts, op.builtinOptions.axis),
    _OP.STRIDED_SLICE: _strided_slice,
    _OP.SLICE: _slice,
    _OP.GATHER: lambda op, x, ids: np.take(x, ids, op.builtinOptions.axis),
}
"""What operators give on constants: those of which shapes are computed."""
