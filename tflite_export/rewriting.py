"""Small changes of a converted graph that leave its results as they are."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export import flatbuffer
from tflite_export.shapes import full_shape, known_values

SHAPE_OPERATORS = (
    schema.BuiltinOperator.RESHAPE,
    schema.BuiltinOperator.EXPAND_DIMS,
    schema.BuiltinOperator.SQUEEZE,
)
"""Operators that give the same elements another shape."""

_KEPT = (schema.BuiltinOperator.CALL_ONCE,)
"""Operators that do something though nobody reads their outputs."""


def producers(graph: schema.SubGraphT) -> dict[int, schema.OperatorT]:
    """The operator that computes each tensor."""
    return {int(i): op for op in graph.operators for i in op.outputs if i >= 0}


def readers(graph: schema.SubGraphT) -> dict[int, list[schema.OperatorT]]:
    """The operators that read each tensor, once for each time that they do."""
    found: dict[int, list[schema.OperatorT]] = {}
    for op in graph.operators:
        for i in op.inputs if op.inputs is not None else ():
            found.setdefault(int(i), []).append(op)
    return found


def redirect(model: schema.ModelT, index: int, source: dict[int, int]) -> None:
    """Let everything in subgraph `index` that reads tensor `t` read `source[t]` instead."""

    def resolve(tensor: int) -> int:
        while tensor in source:
            tensor = source[tensor]
        return tensor

    graph = model.subgraphs[index]
    for op in graph.operators:
        if op.inputs is not None:
            op.inputs = np.array([resolve(int(i)) for i in op.inputs], np.int32)
    graph.outputs = np.array([resolve(int(i)) for i in graph.outputs], np.int32)
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == index:
            for entry in signature.outputs:
                entry.tensorIndex = resolve(entry.tensorIndex)


def remove_unary(model: schema.ModelT, code: int) -> None:
    """Take out all operators of one builtin code; who reads their output then reads their input."""
    for index, graph in enumerate(model.subgraphs):
        removed = [op for op in graph.operators if flatbuffer.builtin_code(model, op) == code]
        take_out(model, index, removed)


def take_out(model: schema.ModelT, index: int, removed: list[schema.OperatorT]) -> None:
    """Remove operators; who reads their first output then reads their first input."""
    graph, gone = model.subgraphs[index], {id(op) for op in removed}
    graph.operators = [op for op in graph.operators if id(op) not in gone]
    redirect(model, index, {int(op.outputs[0]): int(op.inputs[0]) for op in removed})


def remove_dead(model: schema.ModelT) -> None:
    """Drop operators whose outputs nobody reads."""
    for graph in model.subgraphs:
        alive = {int(i) for i in graph.outputs}
        kept = []
        for op in reversed(graph.operators):
            outputs = [int(i) for i in op.outputs if i >= 0]
            acts = not outputs or flatbuffer.builtin_code(model, op) in _KEPT
            if acts or alive.intersection(outputs):
                kept.append(op)
                alive |= {int(i) for i in (op.inputs if op.inputs is not None else ())}
        graph.operators = kept[::-1]


def fix_reshapes(model: schema.ModelT) -> None:
    """Give reshapes a constant shape where it is known but for one axis, which becomes -1.

    The converter computes shapes with an unknown batch at run time, by chains of small operators;
    `remove_dead` then removes those.
    """
    for graph in model.subgraphs:
        made = producers(graph)
        for op in graph.operators:
            reshape = flatbuffer.builtin_code(model, op) == schema.BuiltinOperator.RESHAPE
            if not reshape or len(op.inputs) < 2 or int(op.inputs[1]) not in made:
                continue
            shape = known_values(model, graph, made, int(op.inputs[1]))
            if shape is None or 0 in shape or -1 in shape or shape.count(None) > 1:
                continue
            values = np.array([-1 if n is None else n for n in shape], np.int32)
            op.inputs = np.array([op.inputs[0], _add_shape(model, graph, values)], np.int32)


def _add_shape(model: schema.ModelT, graph: schema.SubGraphT, values: np.ndarray) -> int:
    index = flatbuffer.add_constant(model, graph, "", values.tobytes())
    graph.tensors[index].type = schema.TensorType.INT32
    graph.tensors[index].shape = np.array(values.shape, np.int32)
    return index


def merge_reshapes(model: schema.ModelT) -> None:
    """Skip changes of shape behind which another stands; a shape and back is no change at all.

    `remove_dead` then removes what was skipped.
    """
    for index, graph in enumerate(model.subgraphs):
        made = producers(graph)
        for op in [op for op in graph.operators if _is_reshape(model, op)]:
            source, result = int(op.inputs[0]), int(op.outputs[0])
            while source in made and _is_reshape(model, made[source]):
                source = int(made[source].inputs[0])
            shape = full_shape(graph.tensors[source])
            same = shape == full_shape(graph.tensors[result]) and shape.count(None) < 2
            if same and result not in graph.outputs:
                op.inputs = np.array([source, *op.inputs[1:]], np.int32)
                take_out(model, index, [op])
            elif flatbuffer.builtin_code(model, op) == schema.BuiltinOperator.RESHAPE:
                op.inputs = np.array([source, *op.inputs[1:]], np.int32)


def _is_reshape(model: schema.ModelT, op: schema.OperatorT) -> bool:
    return flatbuffer.builtin_code(model, op) in SHAPE_OPERATORS


def share_constants(model: schema.ModelT) -> None:
    """Let equal constants be one buffer, equal constant tensors one tensor."""
    first: dict[bytes, int] = {}
    for index, graph in enumerate(model.subgraphs):
        same: dict[tuple, int] = {}
        source: dict[int, int] = {}
        for i, tensor in enumerate(graph.tensors):
            data = flatbuffer.constant(model, tensor)
            if data is None:
                continue
            tensor.buffer = first.setdefault(data, tensor.buffer)
            if not _is_empty(tensor.quantization):
                continue
            key = (tensor.buffer, tensor.type, tuple(tensor.shape), _blob_name(tensor, data))
            if same.setdefault(key, i) != i:
                source[i] = same[key]
        redirect(model, index, source)


def _blob_name(tensor: schema.TensorT, data: bytes) -> bytes | str | None:
    """The name of a blob, which is the path of a layer; None for other constants."""
    return tensor.name if data.startswith(flatbuffer.MAGIC) else None


def slim(model: schema.ModelT) -> None:
    """Drop what no runtime reads: notes of the converter, names of what is inside, empty parts.

    Inputs keep their names, as do blobs, which are found by them; outputs are named as in the
    signature. Which axes are unknown stays written everywhere: XNNPACK asks for it.
    """
    model.description = model.metadata = model.metadataBuffer = None
    for index, graph in enumerate(model.subgraphs):
        named = _named_ends(model, index, graph)
        for i, tensor in enumerate(graph.tensors):
            data = flatbuffer.constant(model, tensor)
            if data is None:
                tensor.buffer = 0
            if data is None or _blob_name(tensor, data) is None:
                tensor.name = named.get(i)
            tensor.hasRank = tensor.hasRank and not len(tensor.shape)  # only scalars need it
            if not _is_open(tensor):
                tensor.shapeSignature = None
            if _is_empty(tensor.quantization):
                tensor.quantization = None
        for op in graph.operators:
            for part in ("intermediates", "mutatingVariableInputs", "customOptions"):
                value = getattr(op, part)
                if value is not None and not len(value):
                    setattr(op, part, None)


def _named_ends(model: schema.ModelT, index: int, graph: schema.SubGraphT) -> dict[int, bytes]:
    """Names of the inputs and outputs of a subgraph."""
    outputs = {
        int(entry.tensorIndex): entry.name
        for signature in model.signatureDefs or []
        for entry in signature.outputs
        if signature.subgraphIndex == index
    }
    kept = [int(i) for ends in (graph.outputs, graph.inputs) for i in ends]
    found = {i: outputs.get(i, graph.tensors[i].name) for i in kept}
    return found | {int(i): graph.tensors[int(i)].name for i in graph.inputs}


def _is_open(tensor: schema.TensorT) -> bool:
    return tensor.shapeSignature is not None and -1 in tensor.shapeSignature


def _is_empty(quantization: schema.QuantizationParametersT | None) -> bool:
    if quantization is None:
        return True
    scale = quantization.scale
    return quantization.details is None and (scale is None or not len(scale))
