"""Builtin operators and typed constants for a TFLite graph that is being edited."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

WIDTHS = {"INT2": 2, "INT4": 4, "INT8": 8, "INT16": 16, "INT32": 32, "FLOAT32": 32}
"""Bits of a value in the types that constants have here."""

_OPTIONS = {
    "ADD": "AddOptions",
    "CAST": "CastOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "DIV": "DivOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "GREATER_EQUAL": "GreaterEqualOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "MUL": "MulOptions",
    "PAD": "PadOptions",
    "QUANTIZE": "QuantizeOptions",
    "SHAPE": "ShapeOptions",
    "SLICE": "SliceOptions",
    "SUB": "SubOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
}

Quantization = tuple[Any, Any, int]
"""Scales, zero points, and the axis that they lie along (0 for a single one)."""


class StockGraph:
    """Adds tensors to a graph, and collects new operators until `take` hands them over.

    Args:
        tree: the file; its first graph is edited.
    """

    def __init__(self, tree: schema.ModelT):
        self.tree, self.graph = tree, tree.subgraphs[0]
        self._codes = {(c.builtinCode, c.version): i for i, c in enumerate(tree.operatorCodes)}
        self._constants: dict[tuple, int] = {}
        self._new: list[schema.OperatorT] = []
        self._free: dict[int, list[int]] = {}  # shapes with free axes

    def take(self) -> list[schema.OperatorT]:
        """The operators added since the last call."""
        taken, self._new = self._new, []
        return taken

    def shape(self, tensor: int) -> list[int]:
        """Shape of a tensor, -1 where it is free."""
        if tensor in self._free:
            return self._free[tensor]
        found = self.graph.tensors[tensor]
        free = found.shapeSignature
        return [int(n) for n in (found.shape if free is None or not len(free) else free)]

    def kind(self, tensor: int) -> int:
        """Type of a tensor."""
        return self.graph.tensors[tensor].type

    def tensor(
        self, shape: list[int], kind: str = "FLOAT32", quantization: Quantization | None = None
    ) -> int:
        """A tensor that an operator is to write; -1 is a free axis."""
        tensor = schema.TensorT()
        tensor.type = getattr(schema.TensorType, kind)
        tensor.shape = np.array([1 if n < 0 else n for n in shape], np.int32)
        if -1 in shape:
            self._free[len(self.graph.tensors)] = list(shape)
        tensor.hasRank = True
        tensor.quantization = None if quantization is None else _parameters(*quantization)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(
        self,
        values: np.ndarray,
        kind: str,
        quantization: Quantization | None = None,
        name: str | None = None,
    ) -> int:
        """A constant; equal ones are stored once, under the name of the first."""
        values = np.asarray(values)
        data = constant_bytes(values, kind)
        parameters = None
        if quantization is not None:
            scale, zero, axis = quantization
            parameters = (np.float32(scale).tobytes(), np.int64(zero).tobytes(), axis)
        key = (kind, values.shape, data, parameters)
        if key not in self._constants:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data, np.uint8)
            self.tree.buffers.append(buffer)
            index = self.tensor(list(values.shape), kind, quantization)
            self.graph.tensors[index].buffer = len(self.tree.buffers) - 1
            self.graph.tensors[index].name = name
            self._constants[key] = index
        return self._constants[key]

    def number(self, value: float) -> int:
        """A float constant without axes."""
        return self.constant(np.float32(value), "FLOAT32")

    def add(
        self,
        operator: str,
        inputs: list[int],
        output: int | None = None,
        version: int = 1,
        kind: str = "FLOAT32",
        **options: Any,
    ) -> int:
        """Add an operator; return its output, by default a new tensor shaped as the first input.

        Args:
            operator: name in the schema, as "CONV_2D".
            inputs: indices of tensors.
            output: index of a tensor.
            version: of the operator.
            kind: type of a new output.
            options: fields of the operator's options in the schema.
        """
        if output is None:
            output = self.tensor(self.shape(inputs[0]), kind)
        op = schema.OperatorT()
        op.opcodeIndex = self._code(getattr(schema.BuiltinOperator, operator), version)
        op.inputs, op.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        name = _OPTIONS.get(operator)
        if name:
            op.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            op.builtinOptions = getattr(schema, f"{name}T")()
        for field, value in options.items():
            if not hasattr(op.builtinOptions, field):
                raise ValueError(f"{operator}: expected an option of the schema, got '{field}'")
            setattr(op.builtinOptions, field, value)
        self._new.append(op)
        return output

    def end_in(self, output: int) -> None:
        """Let the operator that was added last write to a given tensor."""
        self._new[-1].outputs = np.array([output], np.int32)

    def add_alike(self, op: schema.OperatorT, inputs: list[int], output: int, version: int) -> None:
        """Add an operator with the options of another."""
        new = schema.OperatorT()
        builtin = self.tree.operatorCodes[op.opcodeIndex].builtinCode
        new.opcodeIndex = self._code(builtin, version)
        new.inputs, new.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        new.builtinOptionsType, new.builtinOptions = op.builtinOptionsType, op.builtinOptions
        self._new.append(new)

    def _code(self, builtin: int, version: int) -> int:
        key = (builtin, version)
        if key not in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode = builtin, min(builtin, 127)
            code.version = version
            self.tree.operatorCodes.append(code)
            self._codes[key] = len(self.tree.operatorCodes) - 1
        return self._codes[key]


def _parameters(scale, zero, axis: int) -> schema.QuantizationParametersT:
    parameters = schema.QuantizationParametersT()
    parameters.scale = np.atleast_1d(np.asarray(scale, np.float32))
    parameters.zeroPoint = np.broadcast_to(np.asarray(zero, np.int64), parameters.scale.shape)
    parameters.quantizedDimension = axis
    return parameters


def constant_bytes(values: np.ndarray, kind: str) -> bytes:
    """Bytes of a constant. Types below 8 bits fill each byte from its lowest bits on.

    Raises:
        ValueError: a value that the type does not hold.
    """
    if kind == "FLOAT32":
        return np.ascontiguousarray(values, "<f4").tobytes()
    width = WIDTHS[kind]
    whole = np.asarray(values, np.int64)
    if whole.size and not -(2 ** (width - 1)) <= whole.min() <= whole.max() < 2 ** (width - 1):
        raise ValueError(f"expected values that {kind} holds, got {whole.min()} to {whole.max()}")
    if width >= 8:
        return np.ascontiguousarray(whole, f"<i{width // 8}").tobytes()
    bits = (whole.reshape(-1, 1) >> np.arange(width) & 1).astype(np.uint8)
    return np.packbits(bits.reshape(-1), bitorder="little").tobytes()
