"""The layers of a TFLite file, packed ones and those of builtin operators."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export import flatbuffer
from tflite_export.contents.reading import FileContents, LayerContents, blob_contents, scale_range
from tflite_export.tflite_writer import OPERATORS

_OP = schema.BuiltinOperator


@dataclasses.dataclass(frozen=True)
class _Kind:
    """A builtin operator with a kernel: what we call it, and which inputs are what."""

    op: str
    kernel: int = 1
    input: int = 0
    bias: int | None = 2


KINDS = {
    _OP.FULLY_CONNECTED: _Kind("dense"),
    _OP.CONV_2D: _Kind("conv2d"),
    _OP.DEPTHWISE_CONV_2D: _Kind("depthwise_conv2d"),
    _OP.TRANSPOSE_CONV: _Kind("transpose_conv", input=2, bias=3),
    _OP.GATHER: _Kind("embedding", kernel=0, input=1, bias=None),
    _OP.EMBEDDING_LOOKUP: _Kind("embedding", bias=None),
}
"""The builtin operators that count as layers, if their kernel is a constant."""

_UNFOLDED = {_OP.DEQUANTIZE, _OP.ADD, _OP.MUL}
"""Operators that may stand between the stored parts of a kernel and its layer."""

_WIDTHS = {"INT2": 2, "INT4": 4, "UINT4": 4, "INT8": 8, "UINT8": 8, "FLOAT16": 16}
"""Bits of an element of the narrow types."""

_TYPE_NAMES = {v: k for k, v in vars(schema.TensorType).items() if not k.startswith("_")}


def tflite_contents(path: str, data: bytes) -> FileContents:
    """The contents of a TFLite file.

    Raises:
        ValueError: if it is corrupt.
    """
    tree = flatbuffer.read(data)
    layers: list[LayerContents] = []
    owned: set[int] = set()  # buffers of layers
    for graph in tree.subgraphs:
        found = _Subgraph(tree, graph)
        layers += found.layers()
        owned |= found.owned
    buffers = {t.buffer for graph in tree.subgraphs for t in graph.tensors} - owned
    constants = sum(_size(tree.buffers[index]) for index in buffers)
    packed = any(layer.container == "packed" for layer in layers)
    kind = "packed TFLite" if packed else "TFLite"
    return FileContents(path, kind, len(data), tuple(layers), constants)


class _Subgraph:
    """Walks over the operators of one subgraph."""

    def __init__(self, tree, graph):
        self.tree, self.graph = tree, graph
        self.makers = {int(i): op for op in graph.operators for i in op.outputs}
        self.owned: set[int] = set()

    def layers(self) -> list[LayerContents]:
        """One a kernel, in the order of its first use."""
        uses: collections.Counter[int] = collections.Counter()
        first: dict[int, tuple] = {}
        for op in self.graph.operators:
            parts = self.kernel(op)
            if parts:
                buffer = parts[0].buffer
                uses[buffer] += 1
                first.setdefault(buffer, (op, parts))
        return [
            self.layer(*found, uses[buffer], number)
            for number, (buffer, found) in enumerate(first.items(), 1)
        ]

    def kind(self, op) -> _Kind | None:
        """What kind of layer an operator is, if any."""
        if flatbuffer.custom_name(self.tree, op) in OPERATORS.values():
            return _Kind("packed")
        return KINDS.get(flatbuffer.builtin_code(self.tree, op))

    def kernel(self, op) -> list[schema.TensorT] | None:
        """The constants that an operator's kernel is made of, the largest one first."""
        kind = self.kind(op)
        if kind is None or len(op.inputs) <= kind.kernel:
            return None
        parts = self.parts(int(op.inputs[kind.kernel]))
        tensors = [self.graph.tensors[i] for i in parts or []]
        tensors.sort(key=lambda t: -int(np.prod(t.shape)))
        if kind.op == "embedding" and tensors and len(tensors[0].shape) != 2:
            return None  # some other table
        return tensors

    def parts(self, tensor: int) -> list[int] | None:
        """The constants that a tensor is computed from; None if it depends on anything else."""
        maker = self.makers.get(tensor)
        if maker is None:
            is_constant = flatbuffer.constant(self.tree, self.graph.tensors[tensor]) is not None
            return [tensor] if is_constant else None
        if flatbuffer.builtin_code(self.tree, maker) not in _UNFOLDED:
            return None
        found = [self.parts(int(i)) for i in maker.inputs]
        return None if None in found else [i for part in found for i in part]

    def layer(self, op, parts: list[schema.TensorT], uses: int, number: int) -> LayerContents:
        """The layer of an operator and the constants of its kernel."""
        kind, tensor = self.kind(op), parts[0]
        self.owned |= {part.buffer for part in parts}
        if kind.op == "packed":
            blob = flatbuffer.constant(self.tree, tensor)
            return blob_contents(_text(tensor.name), blob, uses)
        container, scales = _type_name(tensor), _scales(tensor)
        terms = [part for part in parts if part.type == tensor.type and _alike(part, tensor)]
        codes = sum(self.size(part) for part in terms)
        parameters = sum(map(self.size, parts)) - codes + sum(map(_grid_bytes, parts))
        parameters += self.bias_bytes(op, kind)
        width = _WIDTHS.get(container, 8 * codes // max(1, int(np.prod(tensor.shape))))
        return LayerContents(
            name=_text(tensor.name) or f"({kind.op} {number})",
            op=kind.op,
            shape=tuple(map(int, tensor.shape)),
            widths={width * len(terms): 1 if scales is None else len(scales)},
            encoding=_encoding(tensor) if len(terms) == 1 else f"sum of {len(terms)}",
            container=container,
            grid=self.grid(op, kind),
            code_bytes=codes,
            parameter_bytes=parameters,
            total_bytes=codes + parameters,
            scales=None if scales is None else scale_range(scales),
            uses=uses,
        )

    def size(self, tensor) -> int:
        """Bytes of a constant."""
        return _size(self.tree.buffers[tensor.buffer])

    def bias_bytes(self, op, kind: _Kind) -> int:
        """Bytes of a constant bias."""
        if kind.bias is None or len(op.inputs) <= kind.bias or op.inputs[kind.bias] < 0:
            return 0
        tensor = self.graph.tensors[int(op.inputs[kind.bias])]
        self.owned.add(tensor.buffer)
        return _size(self.tree.buffers[tensor.buffer]) + _grid_bytes(tensor)

    def grid(self, op, kind: _Kind) -> str:
        """The type of the input, with its step if it has one."""
        tensor = self.graph.tensors[int(op.inputs[kind.input])]
        name, scales = _type_name(tensor).lower(), _scales(tensor)
        if scales is None:
            return "float" if name == "float32" else name
        return f"{name}, step {scales[0]:.4g}"


def _type_name(tensor) -> str:
    return _TYPE_NAMES.get(tensor.type, f"type {tensor.type}")


def _alike(a, b) -> bool:
    return list(a.shape) == list(b.shape)


def _scales(tensor) -> np.ndarray | None:
    quantization = tensor.quantization
    scales = None if quantization is None else quantization.scale
    return None if scales is None or not len(scales) else np.asarray(scales)


def _encoding(tensor) -> str:
    if _scales(tensor) is None:
        return "float" if "FLOAT" in _type_name(tensor) else "whole numbers"
    zeros = tensor.quantization.zeroPoint
    return "uniform with offset" if zeros is not None and np.any(zeros) else "uniform"


def _grid_bytes(tensor) -> int:
    """Bytes of the scales (float32) of a tensor, and of its zero points (int64) unless all are 0,
    which a file may hold once for all tensors."""
    scales = _scales(tensor)
    if scales is None:
        return 0
    zeros = tensor.quantization.zeroPoint
    return 4 * len(scales) + (8 * len(zeros) if zeros is not None and np.any(zeros) else 0)


def _size(buffer) -> int:
    return 0 if buffer.data is None else len(buffer.data)


def _text(name) -> str:
    return name.decode() if isinstance(name, bytes) else name or ""
