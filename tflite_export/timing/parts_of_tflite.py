"""The operators of a TFLite file, each as a file of its own.

An operator comes with those before it that only prepare its constants (the DEQUANTIZE of a kernel,
say), which an interpreter runs once.
"""

from __future__ import annotations

import copy

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export import flatbuffer
from tflite_export.blob.writer import read_blob
from tflite_export.tflite_writer import OPERATORS
from tflite_export.timing.part import Part

_OP = schema.BuiltinOperator
_NAMES = {code: name for name, code in vars(_OP).items() if not name.startswith("_")}
_OF_OTHER_GRAPHS = {_OP.WHILE, _OP.IF, _OP.CALL_ONCE}
_OPS = {custom: op for op, custom in OPERATORS.items()}


def tflite_parts(data: bytes) -> list[Part]:
    """What runs in the main graph, in order.

    Raises:
        ValueError: if the file is corrupt.
    """
    graph = _Graph(flatbuffer.read(data))
    return [graph.part(op) for op in graph.operators if op.outputs[0] not in graph.prepared]


class _Graph:
    """The main graph of a file."""

    def __init__(self, tree: schema.ModelT):
        self.tree, self.graph = tree, tree.subgraphs[0]
        self.operators, self.tensors = self.graph.operators, self.graph.tensors
        self.prepared: dict[int, schema.OperatorT] = {}  # makers of tensors that never change
        for op in self.operators:
            inputs = _tensors(op)
            if inputs and all(self.is_constant(i) for i in inputs):
                self.prepared |= {int(i): op for i in op.outputs}

    def is_constant(self, tensor: int) -> bool:
        """Whether it is stored in the file, or made from what is."""
        stored = flatbuffer.constant(self.tree, self.tensors[tensor]) is not None
        return stored or tensor in self.prepared

    def part(self, op: schema.OperatorT) -> Part:
        """The operator as a file."""
        name, kind = self.name(op)
        read = [i for i in _tensors(op) if not self.is_constant(i)]
        shapes = [self.shape(i) for i in (*read[:1], int(op.outputs[0]))]
        ends = (shapes[0] if read else (), shapes[-1])
        alone = flatbuffer.builtin_code(self.tree, op) not in _OF_OTHER_GRAPHS
        if any(self.tensors[i].isVariable for i in (*_tensors(op), *map(int, op.outputs))):
            alone = False
        data = self.file(op, read) if alone else None
        return Part(name, kind, *ends, self.macs(op, ends[1]), data)

    def name(self, op: schema.OperatorT) -> tuple[str, str]:
        """What to call it, and what it does."""
        code, custom = (f(self.tree, op) for f in (flatbuffer.builtin_code, flatbuffer.custom_name))
        if custom in _OPS:
            return self.text(int(op.inputs[1])), f"packed {_OPS[custom]}"
        kind = custom or _NAMES.get(code, f"op {code}").lower()
        return self.text(int(op.outputs[0])) or f"({kind} {int(op.outputs[0])})", kind

    def macs(self, op: schema.OperatorT, output: tuple[int, ...]) -> int:
        """Multiplications of a layer, 0 for anything else."""
        code, count = flatbuffer.builtin_code(self.tree, op), int(np.prod(output))
        if flatbuffer.custom_name(self.tree, op) in _OPS:
            layer = read_blob(
                flatbuffer.constant(self.tree, self.tensors[int(op.inputs[1])]) or b""
            )
            return 0 if layer.op == "embedding" else count * layer.row_size
        if code in (_OP.CONV_2D, _OP.FULLY_CONNECTED):
            return count * int(np.prod(self.shape(int(op.inputs[1]))[1:]))
        if code == _OP.DEPTHWISE_CONV_2D:
            return count * int(np.prod(self.shape(int(op.inputs[1]))[1:3]))
        return 0

    def file(self, op: schema.OperatorT, inputs: list[int]) -> bytes:
        """A file with the operator and what prepares its constants."""
        needed, waiting = [op], _tensors(op)
        while waiting:
            maker = self.prepared.get(waiting.pop())
            if maker is not None and not any(maker is one for one in needed):
                needed.append(maker)
                waiting += _tensors(maker)
        graph = copy.copy(self.graph)
        graph.operators = [copy.copy(o) for o in self.operators if any(o is n for n in needed)]
        graph.tensors = [copy.copy(tensor) for tensor in self.tensors]
        graph.inputs, graph.outputs = np.array(inputs, np.int32), np.array(op.outputs, np.int32)
        tree = copy.copy(self.tree)
        tree.subgraphs, tree.signatureDefs, tree.metadata = [graph], None, None
        flatbuffer.remove_unused(tree)
        flatbuffer.add_checksum(tree)
        return flatbuffer.write(tree)

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Its shape in the file."""
        shape = self.tensors[tensor].shape
        return () if shape is None else tuple(map(int, shape))

    def text(self, tensor: int) -> str:
        """The name of a tensor, empty if it has none."""
        name = self.tensors[tensor].name
        return name.decode(errors="replace") if isinstance(name, bytes) else name or ""


def _tensors(op: schema.OperatorT) -> list[int]:
    """Inputs that are there."""
    return [int(i) for i in (op.inputs if op.inputs is not None else []) if i >= 0]
