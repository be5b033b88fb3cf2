"""What a converted graph computes about shapes, as far as it is known before it runs."""

from __future__ import annotations

import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export import flatbuffer

Values = list[int | None]
"""A whole-number tensor of one axis or a single number; None where it depends on the input."""


def known_values(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    producers: dict[int, schema.OperatorT],
    index: int,
) -> Values | None:
    """The values of a tensor of whole numbers, None for each that is unknown.

    Follows what converters make of shapes: SHAPE, STRIDED_SLICE, GATHER, PACK, CONCATENATION,
    REDUCE_PROD, RESHAPE, CAST. Returns None if something else comes in.

    Example: the shape of a flattened image of unknown batch is `[None, 768]`.
    """
    tensor = graph.tensors[index]
    data = flatbuffer.constant(model, tensor)
    if data is not None:
        types = {schema.TensorType.INT32: "<i4", schema.TensorType.INT64: "<i8"}
        kind = types.get(tensor.type) if len(tensor.shape) < 2 else None
        return None if kind is None else [int(n) for n in np.frombuffer(data, kind)]
    op = producers.get(index)
    if op is None:
        return None
    code = flatbuffer.builtin_code(model, op)
    if code == schema.BuiltinOperator.SHAPE:
        return full_shape(graph.tensors[int(op.inputs[0])])
    compute = _RULES.get(code)
    if compute is None:
        return None
    given = [known_values(model, graph, producers, int(i)) for i in op.inputs]
    return None if any(values is None for values in given) else compute(op, *given)


def full_shape(tensor: schema.TensorT) -> Values:
    """The shape of a tensor, None for axes that depend on the input."""
    signature = tensor.shapeSignature
    fixed = tensor.shape if signature is None or not len(signature) else signature
    return [None if n < 0 else int(n) for n in fixed]


def _slice(op, values: Values, begin: Values, end: Values, step: Values) -> Values | None:
    o = op.builtinOptions
    if o.ellipsisMask or o.newAxisMask or None in [*begin, *end, *step] or len(begin) != 1:
        return None
    if o.shrinkAxisMask:
        return [values[begin[0]]]
    start = None if o.beginMask else begin[0]
    return values[start : None if o.endMask else end[0] : step[0]]


def _gather(op, values: Values, indices: Values) -> Values | None:
    if None in indices:
        return None
    return [values[i] for i in indices]


def _join(op, *parts: Values) -> Values:
    return [n for part in parts for n in part]


def _product(op, values: Values, axes: Values) -> Values:
    return [None if None in values else math.prod(values)]


_RULES = {
    schema.BuiltinOperator.STRIDED_SLICE: _slice,
    schema.BuiltinOperator.GATHER: _gather,
    schema.BuiltinOperator.PACK: _join,
    schema.BuiltinOperator.CONCATENATION: _join,
    schema.BuiltinOperator.REDUCE_PROD: _product,
    schema.BuiltinOperator.RESHAPE: lambda op, values, shape: values,
    schema.BuiltinOperator.CAST: lambda op, values: values,
}
