"""Let layers that are our own operators take over what stands next to them.

Any clamp behind a layer, and zero padding in front of it, become part of the layer.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kerasbits.packed import FloatGrid, InputGrid
from tflite_export import flatbuffer, rewriting
from tflite_export.fusing import only_reader
from tflite_export.layer import MAX_WINDOW, PackedLayer
from tflite_export.marked import Marked

Clamp = tuple[float, float]
Pads = tuple[tuple[int, int], tuple[int, int]]

_Op = schema.BuiltinOperator

_CLAMPS = {
    _Op.RELU: (0.0, math.inf),
    _Op.RELU_N1_TO_1: (-1.0, 1.0),
    _Op.RELU6: (0.0, 6.0),
    _Op.RELU_0_TO_1: (0.0, 1.0),
}


def fold_neighbours(marked: Marked) -> Marked:
    """The same model; clamps behind layers and zero padding in front of them are theirs.

    The padding of a layer in the result may then differ from that of the collected one: the
    operator reads the tensor without zeros around it. Padding is only folded where the input grid
    maps 0 to exactly 0, because what a layer pads with adds exactly nothing, and every use of the
    layer must have the same. What is not needed any more is gone.

    Args:
        marked: is changed and must not be used any more.
    """
    layers = {}
    for path, layer in marked.layers.items():
        uses = marked.operators[path]
        layers[path] = _fold_padding(marked.tree, uses, _fold_clamps(marked.tree, uses, layer))
    rewriting.remove_dead(marked.tree)
    return dataclasses.replace(marked, layers=layers)


def _fold_clamps(tree, uses, layer: PackedLayer) -> PackedLayer:
    if layer.op == "embedding":
        return layer
    while True:
        behind = [only_reader(tree, op) for op in uses]
        clamps = {None if op is None else _clamp(tree, op) for op in behind}
        if len(clamps) != 1 or None in clamps:
            return layer
        low, high = clamps.pop()
        for op in behind:  # a constant may be the first input of MINIMUM
            if flatbuffer.constant(tree, tree.subgraphs[0].tensors[int(op.inputs[0])]) is not None:
                op.inputs = op.inputs[::-1]
        rewriting.take_out(tree, 0, behind)
        ends = [min(max(end, low), high) for end in (layer.act_min, layer.act_max)]
        layer = dataclasses.replace(layer, act_min=ends[0], act_max=ends[1])


def _clamp(tree, op) -> Clamp | None:
    """The interval that an operator cuts its input to; None if it does something else."""
    code = flatbuffer.builtin_code(tree, op)
    if code not in (_Op.MINIMUM, _Op.MAXIMUM):
        return _CLAMPS.get(code)
    graph = tree.subgraphs[0]
    found = [flatbuffer.constant(tree, graph.tensors[int(i)]) for i in op.inputs]
    limits = [data for data in found if data is not None]
    if len(limits) != 1 or len(limits[0]) != 4:
        return None
    limit = float(np.frombuffer(limits[0], "<f4")[0])
    if math.isnan(limit):
        return None
    return (-math.inf, limit) if code == _Op.MINIMUM else (limit, math.inf)


def _fold_padding(tree, uses, layer: PackedLayer) -> PackedLayer:
    """The layer with the zero padding in front of all of its uses."""
    windowed = layer.op in ("conv2d", "depthwise_conv2d")
    if not windowed or layer.padding == "same" or layer.input_dilations != (1, 1):
        return layer
    if not _keeps_zero(layer.grid):
        return layer
    found = [_Padded.in_front(tree, op) for op in uses]
    pads = {None if padded is None else padded.pads for padded in found}
    if len(pads) != 1 or None in pads:
        return layer
    own = ((0, 0), (0, 0)) if layer.padding == "valid" else layer.padding
    total = tuple(tuple(np.add(a, b).tolist()) for a, b in zip(own, pads.pop(), strict=True))
    if max(map(max, total)) > MAX_WINDOW:
        return layer
    for op, padded in zip(uses, found, strict=True):
        padded.bypass(tree, op)
    return dataclasses.replace(layer, padding=total)


def _keeps_zero(grid: InputGrid) -> bool:
    """Whether the input 0 is quantized to exactly 0."""
    if isinstance(grid, FloatGrid):
        return grid.lo <= 0 <= grid.hi
    zero = np.zeros(1, np.float32)
    return float(grid.values(grid.codes(zero))[0]) == 0.0


@dataclasses.dataclass(frozen=True)
class _Padded:
    """A zero padding in front of an operator, and what adds an axis in between, if anything."""

    pad: schema.OperatorT
    expand: schema.OperatorT | None
    pads: Pads

    @classmethod
    def in_front(cls, tree, op) -> _Padded | None:
        """What `op` reads through a padding of rows and columns; None if there is none."""
        graph = tree.subgraphs[0]
        made = rewriting.producers(graph)
        pad, expand = made.get(int(op.inputs[0])), None
        if pad is not None and flatbuffer.builtin_code(tree, pad) in rewriting.SHAPE_OPERATORS:
            pad, expand = made.get(int(pad.inputs[0])), pad
        if pad is None or not _pads_with_zero(tree, pad):
            return None
        data = flatbuffer.constant(tree, graph.tensors[int(pad.inputs[1])])
        if data is None:
            return None
        kind = graph.tensors[int(pad.inputs[1])].type
        amounts = np.frombuffer(data, "<i8" if kind == schema.TensorType.INT64 else "<i4")
        amounts = amounts.reshape(-1, 2).tolist()
        if expand is not None:
            if not _adds_rows(graph, expand):
                return None
            amounts.insert(1, [0, 0])
        if len(amounts) != 4 or any(amounts[0] + amounts[3]) or min(map(min, amounts)) < 0:
            return None
        return cls(pad, expand, (tuple(amounts[1]), tuple(amounts[2])))

    def bypass(self, tree, op) -> None:
        """Let `op` read what is padded."""
        source = int(self.pad.inputs[0])
        if self.expand is not None:
            source = self._expanded(tree, source)
        op.inputs = np.array([source, *op.inputs[1:]], np.int32)

    def _expanded(self, tree, source: int) -> int:
        """The unpadded tensor with the axis added, by an operator beside the present one."""
        graph = tree.subgraphs[0]
        shape = graph.tensors[source].shapeSignature
        shape = graph.tensors[source].shape if shape is None or not len(shape) else shape
        batch, columns, channels = (int(n) for n in shape)
        tensor = schema.TensorT()
        tensor.type, tensor.hasRank = graph.tensors[source].type, True
        tensor.shape = np.array([abs(batch), 1, abs(columns), channels], np.int32)
        if min(batch, columns) < 0:
            tensor.shapeSignature = np.array([batch, 1, columns, channels], np.int32)
        graph.tensors.append(tensor)
        op = schema.OperatorT()
        op.opcodeIndex = flatbuffer.opcode(tree, _Op.EXPAND_DIMS)
        op.builtinOptionsType = schema.BuiltinOptions.ExpandDimsOptions
        op.builtinOptions = schema.ExpandDimsOptionsT()
        axis = flatbuffer.add_constant(tree, graph, "", np.int32(1).tobytes())
        graph.tensors[axis].type = schema.TensorType.INT32
        graph.tensors[axis].shape = np.zeros(0, np.int32)
        op.inputs = np.array([source, axis], np.int32)
        op.outputs = np.array([graph.tensors.index(tensor)], np.int32)
        graph.operators.insert(graph.operators.index(self.expand), op)
        return int(op.outputs[0])


def _pads_with_zero(tree, op) -> bool:
    code = flatbuffer.builtin_code(tree, op)
    if code != _Op.PADV2:
        return code == _Op.PAD
    data = flatbuffer.constant(tree, tree.subgraphs[0].tensors[int(op.inputs[2])])
    return data is not None and not np.frombuffer(data, np.uint8).any()


def _adds_rows(graph, expand) -> bool:
    """Whether an operator makes `[n, w, c]` to `[n, 1, w, c]`."""
    before = graph.tensors[int(expand.inputs[0])].shape
    after = graph.tensors[int(expand.outputs[0])].shape
    return len(before) == 3 and list(after) == [before[0], 1, *before[1:]]
