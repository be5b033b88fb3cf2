"""Ids of float embeddings as they are, without Keras' rule for negative ones."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from tflite_export import flatbuffer, rewriting

_OP = tflite.BuiltinOperator


def take_ids_as_they_are(tree: tflite.ModelT) -> None:
    """Let each embedding read its ids where Keras put `where(ids < 0, ids + rows, ids)` before it.

    A .kbits file has no use for negative ids: an id without a row is an error when it runs.
    """
    graph = tree.subgraphs[0]
    made_by = rewriting.producers(graph)
    for op in graph.operators:
        if flatbuffer.builtin_code(tree, op) == _OP.GATHER:
            ids = _unwrapped(tree, graph, made_by, int(op.inputs[1]))
            op.inputs = np.array([op.inputs[0], ids, *op.inputs[2:]], np.int32)
    rewriting.remove_dead(tree)


def _unwrapped(tree, graph, made_by, ids: int) -> int:
    """The ids that such an expression was made from, or `ids` themselves."""
    select = made_by.get(ids)
    if select is None or flatbuffer.builtin_code(tree, select) not in (_OP.SELECT, _OP.SELECT_V2):
        return ids
    condition, wrapped, plain = (int(i) for i in select.inputs)
    less, add = made_by.get(condition), made_by.get(wrapped)
    if less is None or flatbuffer.builtin_code(tree, less) != _OP.LESS:
        return ids
    if add is None or flatbuffer.builtin_code(tree, add) != _OP.ADD:
        return ids
    zero = flatbuffer.constant(tree, graph.tensors[int(less.inputs[1])])
    fits = int(less.inputs[0]) == plain and plain in (int(i) for i in add.inputs)
    return plain if fits and zero is not None and not any(zero) else ids
