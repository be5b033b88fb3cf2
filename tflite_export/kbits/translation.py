"""Reading a converted graph while its operators become nodes of a .kbits file."""

from __future__ import annotations

import math

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from tflite_export import flatbuffer
from tflite_export.kbits.graph import KbitsGraph
from tflite_export.marked import ACTIVATION_RANGES

_NUMPY_TYPES = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.FLOAT64: np.float64,
    tflite.TensorType.INT8: np.int8,
    tflite.TensorType.UINT8: np.uint8,
    tflite.TensorType.INT16: np.int16,
    tflite.TensorType.INT32: np.int32,
    tflite.TensorType.INT64: np.int64,
    tflite.TensorType.BOOL: np.bool_,
}

OPERATOR_NAMES = {
    code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)
}
"""Names of builtin operators by code."""


class Translation:
    """A converted graph, what is known of its tensors, and the .kbits graph that it becomes.

    Args:
        tree: the converted file.
    """

    def __init__(self, tree: tflite.ModelT):
        self.tree = tree
        self.source = tree.subgraphs[0]
        self.graph = KbitsGraph()
        self._tensors: dict[int, int] = {}
        self._known: dict[int, np.ndarray] = {}

    # What the converted file says.

    def code(self, op: tflite.OperatorT) -> int:
        """Builtin operator code."""
        return flatbuffer.builtin_code(self.tree, op)

    def name(self, index: int) -> str:
        """Name of a tensor of the converted file."""
        name = self.source.tensors[index].name
        return name.decode() if isinstance(name, bytes) else str(name)

    def dtype(self, index: int) -> np.dtype:
        """NumPy type of a tensor of the converted file."""
        kind = self.source.tensors[index].type
        if kind not in _NUMPY_TYPES:
            raise ValueError(
                f"tensor '{self.name(index)}': expected plain numbers, got type {kind}"
            )
        return np.dtype(_NUMPY_TYPES[kind])

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape of a tensor of the converted file; a known one, as the batch is."""
        tensor = self.source.tensors[index]
        signature = tensor.shapeSignature
        shape = signature if signature is not None and len(signature) else tensor.shape
        shape = () if shape is None else tuple(int(n) for n in shape)
        if min(shape, default=1) < 0:
            raise ValueError(f"tensor '{self.name(index)}': expected a fixed shape, got {shape}")
        return shape

    def value(self, index: int) -> np.ndarray | None:
        """The value of a tensor that is known before the model runs, else None."""
        if index < 0:
            return None
        if index not in self._known:
            data = flatbuffer.constant(self.tree, self.source.tensors[index])
            if data is None:
                return None
            dtype = self.dtype(index).newbyteorder("<")
            values = np.frombuffer(data, dtype).astype(self.dtype(index))
            self._known[index] = values.reshape(self.shape(index))
        return self._known[index]

    def know(self, index: int, value: np.ndarray) -> None:
        """Say that a tensor has this value whatever the inputs are."""
        self._known[index] = np.asarray(value, self.dtype(index)).reshape(self.shape(index))

    def error(self, op: tflite.OperatorT, expected: str, got: object) -> ValueError:
        """A `ValueError` that names the operator and its output."""
        name = OPERATOR_NAMES.get(self.code(op), str(self.code(op)))
        where = self.name(int(op.outputs[0])) if len(op.outputs) else "nothing"
        return ValueError(f"operator {name} that writes '{where}': expected {expected}, got {got}")

    def constant(self, op: tflite.OperatorT, position: int) -> np.ndarray:
        """The value of an input that .kbits needs to be constant."""
        index = int(op.inputs[position]) if position < len(op.inputs) else -1
        value = self.value(index)
        if value is None:
            raise self.error(op, f"a constant as input {position}", "a computed tensor")
        return value

    def clamp(self, op: tflite.OperatorT) -> list[float]:
        """The bounds of a fused activation, none if there is none."""
        low, high = self.bounds(op)
        return [] if math.isinf(low) and math.isinf(high) else [low, high]

    def bounds(self, op: tflite.OperatorT) -> tuple[float, float]:
        """The bounds of a fused activation, infinite if there is none."""
        fused = getattr(op.builtinOptions, "fusedActivationFunction", 0)
        if fused not in ACTIVATION_RANGES:
            raise self.error(op, f"a fused activation among {list(ACTIVATION_RANGES)}", fused)
        return ACTIVATION_RANGES[fused]

    # What becomes of it.

    def tensor(self, index: int) -> int:
        """The tensor of the .kbits graph that holds a tensor of the converted file.

        A constant is added when it is first asked for.
        """
        if index not in self._tensors:
            value = self.value(index)
            if value is None:
                raise ValueError(f"tensor '{self.name(index)}': expected it to be computed before")
            if value.dtype.kind in "iub":
                value = self._as_int32(index, value)
            self._tensors[index] = self.graph.constant(value)
        return self._tensors[index]

    def inputs(self, op: tflite.OperatorT, count: int) -> list[int]:
        """The first `count` inputs of an operator, as tensors of the .kbits graph."""
        if len(op.inputs) < count or min(op.inputs[:count]) < 0:
            raise self.error(op, f"{count} inputs", list(op.inputs))
        return [self.tensor(int(i)) for i in op.inputs[:count]]

    def add_input(self, index: int, name: str) -> int:
        """Add an input of the model."""
        self._tensors[index] = self.graph.tensor(self.shape(index), self.dtype(index), name)
        return self._tensors[index]

    def output(self, op: tflite.OperatorT) -> int:
        """Add the tensor that an operator writes first."""
        return self.add_output(int(op.outputs[0]))

    def add_output(self, index: int) -> int:
        """Add a tensor of the converted file that a node will write."""
        try:
            self._tensors[index] = self.graph.tensor(self.shape(index), self.dtype(index))
        except ValueError as error:
            raise ValueError(f"tensor '{self.name(index)}': {error}") from None
        return self._tensors[index]

    def is_same(self, index: int, tensor: int) -> None:
        """A tensor of the converted file is one that the .kbits graph has already."""
        assert self.graph.shape(tensor) == self.shape(index)
        self._tensors[index] = tensor

    def _as_int32(self, index: int, value: np.ndarray) -> np.ndarray:
        narrow = value.astype(np.int32)
        if not np.array_equal(narrow, value):
            raise ValueError(f"tensor '{self.name(index)}': expected values that fit int32")
        return narrow
