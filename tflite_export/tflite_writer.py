"""A packed TFLite file: each marked operator becomes a custom one that reads a blob."""

from __future__ import annotations

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export import flatbuffer, rewriting
from tflite_export.blob.writer import section_sizes, write_blob
from tflite_export.collect import PackedModel
from tflite_export.folding import fold_neighbours
from tflite_export.marked import Marked, convert_marked, data_input
from tflite_export.written import Stored, WrittenFile

OPERATORS = {
    "dense": "KerasbitsDense",
    "conv2d": "KerasbitsConv2D",
    "depthwise_conv2d": "KerasbitsDepthwiseConv2D",
    "embedding": "KerasbitsEmbedding",
}
"""Name of the custom operator that runs each kind of packed layer."""

_ELEMENTWISE = {
    schema.BuiltinOperator.ADD,
    schema.BuiltinOperator.SUB,
    schema.BuiltinOperator.MUL,
    schema.BuiltinOperator.DIV,
    schema.BuiltinOperator.MAXIMUM,
    schema.BuiltinOperator.MINIMUM,
    schema.BuiltinOperator.PRELU,
}
"""Operators whose constants are no kernels (batch norms that could not be folded, say)."""


def write_packed(model: keras.Model, packed: PackedModel) -> WrittenFile:
    """The packed TFLite file of a collected model.

    Raises:
        ValueError: if the converter changed, dropped or duplicated a kernel, naming the layer.
    """
    marked = fold_neighbours(convert_marked(model, packed))
    tree = marked.tree
    blobs = _replace_marked(marked)
    rewriting.remove_dead(tree)
    rewriting.share_constants(tree)
    rewriting.slim(tree)
    flatbuffer.remove_unused(tree)
    flatbuffer.add_checksum(tree)
    inputs, outputs = _ends(tree, blobs)
    stored = {
        path: Stored("packed", section_sizes(blob).get("codes", 0), len(blob))
        for path, blob in blobs.items()
    }
    floats = float_kernel_bytes(tree)
    data = flatbuffer.write(tree)
    return WrittenFile(data, marked.layers, blobs, inputs, outputs, stored, floats)


def _replace_marked(marked: Marked) -> dict[str, bytes]:
    """Put custom operators in the place of the marked ones; a shared layer has one blob."""
    tree, graph = marked.tree, marked.tree.subgraphs[0]
    blobs = {}
    for path, operators in marked.operators.items():
        layer = marked.layers[path]
        blobs[path] = write_blob(layer)
        blob = flatbuffer.add_constant(tree, graph, path, blobs[path])
        for op in operators:
            op.inputs = np.array([data_input(tree, op), blob], np.int32)
            op.opcodeIndex = flatbuffer.custom_opcode(tree, OPERATORS[layer.op])
            op.builtinOptionsType, op.builtinOptions = schema.BuiltinOptions.NONE, None
    return blobs


def _ends(tree, blobs) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Input and output tensors of each packed layer."""
    inputs: dict[str, list[int]] = {path: [] for path in blobs}
    outputs: dict[str, list[int]] = {path: [] for path in blobs}
    graph = tree.subgraphs[0]
    for op in graph.operators:
        if flatbuffer.custom_name(tree, op) in OPERATORS.values():
            name = graph.tensors[op.inputs[1]].name
            path = name.decode() if isinstance(name, bytes) else name
            inputs[path].append(int(op.inputs[0]))
            outputs[path].append(int(op.outputs[0]))
    return {p: tuple(i) for p, i in inputs.items()}, {p: tuple(o) for p, o in outputs.items()}


def float_kernel_bytes(tree) -> int:
    """Bytes of the float kernels: constants with two or more axes that no elementwise op reads."""
    kernels: dict[int, int] = {}
    for graph in tree.subgraphs:
        for op in graph.operators:
            if flatbuffer.builtin_code(tree, op) in _ELEMENTWISE:
                continue
            for tensor in (graph.tensors[i] for i in op.inputs if i >= 0):
                data = flatbuffer.constant(tree, tensor)
                if tensor.type == schema.TensorType.FLOAT32 and len(tensor.shape) > 1 and data:
                    kernels[tensor.buffer] = len(data)
    return sum(kernels.values())


def packed_blobs(tree) -> dict[str, bytes]:
    """The blobs of a packed file by layer path."""
    blobs: dict[str, bytes] = {}
    for graph in tree.subgraphs:
        for op in graph.operators:
            if flatbuffer.custom_name(tree, op) in OPERATORS.values():
                tensor = graph.tensors[op.inputs[1]]
                name = tensor.name.decode() if isinstance(tensor.name, bytes) else tensor.name
                blobs[name] = flatbuffer.constant(tree, tensor) or b""
    return blobs
