"""Elementwise operators of a converted graph as .kbits nodes."""

from __future__ import annotations

import math

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from tflite_export import kbits_generated as schema
from tflite_export.kbits.translation import Translation

_OP = tflite.BuiltinOperator

_BINARY = {
    _OP.ADD: schema.Op.ADD,
    _OP.SUB: schema.Op.SUB,
    _OP.MUL: schema.Op.MUL,
    _OP.DIV: schema.Op.DIV,
    _OP.MAXIMUM: schema.Op.MAXIMUM,
    _OP.MINIMUM: schema.Op.MINIMUM,
    _OP.POW: schema.Op.POW,
    _OP.SQUARED_DIFFERENCE: schema.Op.SQUARED_DIFFERENCE,
    _OP.PRELU: schema.Op.PRELU,
}

_UNARY = {
    _OP.ELU: schema.Op.ELU,
    _OP.LOGISTIC: schema.Op.LOGISTIC,
    _OP.TANH: schema.Op.TANH,
    _OP.HARD_SWISH: schema.Op.HARD_SWISH,
    _OP.EXP: schema.Op.EXP,
    _OP.LOG: schema.Op.LOG,
    _OP.SQRT: schema.Op.SQRT,
    _OP.RSQRT: schema.Op.RSQRT,
    _OP.NEG: schema.Op.NEG,
    _OP.ABS: schema.Op.ABS,
    _OP.SQUARE: schema.Op.SQUARE,
    _OP.SIN: schema.Op.SIN,
    _OP.COS: schema.Op.COS,
    _OP.FLOOR: schema.Op.FLOOR,
    _OP.CEIL: schema.Op.CEIL,
    _OP.ROUND: schema.Op.ROUND,
    _OP.SIGN: schema.Op.SIGN,
    _OP.LOG_SOFTMAX: schema.Op.LOG_SOFTMAX,
}

_CLAMPS = {
    _OP.RELU: (0.0, math.inf),
    _OP.RELU6: (0.0, 6.0),
    _OP.RELU_N1_TO_1: (-1.0, 1.0),
    _OP.RELU_0_TO_1: (0.0, 1.0),
}


def binary(t: Translation, op: tflite.OperatorT) -> None:
    """Two tensors that broadcast, and perhaps a fused activation."""
    inputs = t.inputs(op, 2)
    _require_floats(t, op)
    t.graph.write(_BINARY[t.code(op)], inputs, t.output(op), floats=t.clamp(op))


def add_many(t: Translation, op: tflite.OperatorT) -> None:
    """ADD_N: a chain of sums."""
    *first, last = t.inputs(op, len(op.inputs))
    _require_floats(t, op)
    total = first[0] if first else last
    for tensor in first[1:]:
        total = t.graph.compute(schema.Op.ADD, [total, tensor], t.shape(int(op.outputs[0])))
    if first:
        t.graph.write(schema.Op.ADD, [total, last], t.output(op))
    else:
        t.is_same(int(op.outputs[0]), total)


def unary(t: Translation, op: tflite.OperatorT) -> None:
    """A function without parameters."""
    _require_floats(t, op)
    t.graph.write(_UNARY[t.code(op)], t.inputs(op, 1), t.output(op))


def clamp(t: Translation, op: tflite.OperatorT) -> None:
    """The activations that are clamps."""
    _require_floats(t, op)
    t.graph.write(schema.Op.CLAMP, t.inputs(op, 1), t.output(op), floats=_CLAMPS[t.code(op)])


def leaky_relu(t: Translation, op: tflite.OperatorT) -> None:
    """LEAKY_RELU."""
    slope = op.builtinOptions.alpha
    t.graph.write(schema.Op.LEAKY_RELU, t.inputs(op, 1), t.output(op), floats=[slope])


def gelu(t: Translation, op: tflite.OperatorT) -> None:
    """GELU, by erf or by tanh."""
    formula = int(op.builtinOptions.approximate)
    t.graph.write(schema.Op.GELU, t.inputs(op, 1), t.output(op), ints=[formula])


def softmax(t: Translation, op: tflite.OperatorT) -> None:
    """SOFTMAX along the last axis."""
    beta = op.builtinOptions.beta
    t.graph.write(schema.Op.SOFTMAX, t.inputs(op, 1), t.output(op), floats=[beta])


def cast(t: Translation, op: tflite.OperatorT) -> None:
    """CAST between float32 and int32."""
    t.graph.write(schema.Op.CAST, t.inputs(op, 1), t.output(op))


def _require_floats(t: Translation, op: tflite.OperatorT) -> None:
    for index in (*op.inputs, *op.outputs):
        if t.dtype(int(index)) != np.float32:
            raise t.error(op, "float32 tensors", f"'{t.name(int(index))}' of {t.dtype(int(index))}")


TRANSLATORS = {
    **dict.fromkeys(_BINARY, binary),
    **dict.fromkeys(_UNARY, unary),
    **dict.fromkeys(_CLAMPS, clamp),
    _OP.ADD_N: add_many,
    _OP.LEAKY_RELU: leaky_relu,
    _OP.GELU: gelu,
    _OP.SOFTMAX: softmax,
    _OP.CAST: cast,
}
"""Function that translates each operator."""
