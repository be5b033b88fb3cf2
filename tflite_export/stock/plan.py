"""Which tensors of a stock file are int8, and on what grids: decided before anything is changed."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kerasbits.packed import UniformGrid
from tflite_export import flatbuffer, rewriting
from tflite_export.layer import PackedLayer
from tflite_export.marked import Marked
from tflite_export.stock.grids import int8_codes
from tflite_export.stock.kernels import stock_kernel
from tflite_export.stock.operators import is_transposed

_Op = schema.BuiltinOperator

PASSING = {_Op.MAX_POOL_2D: 2, _Op.RESHAPE: 1, _Op.EXPAND_DIMS: 1, _Op.SQUEEZE: 1, _Op.PAD: 2}
"""Operators whose int8 form gives the int8 form of their output, and its version."""

DATA_INPUT = {_Op.TRANSPOSE_CONV: 2, _Op.GATHER: 1}
"""Which input of a marked operator is data, where it is not the first."""

_NOT_NEGATIVE = (_Op.RELU, _Op.RELU6, _Op.SOFTMAX, _Op.LOGISTIC)
_KEEPS_SIGN = (*PASSING, _Op.AVERAGE_POOL_2D, _Op.MEAN)
_LARGEST_BIAS = 2**30


@dataclasses.dataclass(frozen=True)
class Use:
    """One use of a quantized layer: its operator, and the float tensors it reads and writes."""

    path: str
    operator: schema.OperatorT
    x: int
    output: int


@dataclasses.dataclass(frozen=True)
class Int8:
    """Parameters of an int8 tensor: `value = scale * (code - zero)`, codes up to `top`."""

    scale: float
    zero: int
    top: int = 127


@dataclasses.dataclass(frozen=True)
class IntegerLayer:
    """A layer in integers.

    Args:
        steps: kernel in whole steps within +-127, in kernel order.
        scale: (C,) value per step, the multiplier in it.
    """

    steps: np.ndarray
    scale: np.ndarray


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is computed in integers.

    Args:
        layers: the layers in integers by path.
        outputs: parameters of what each of them writes.
        notes: why each other layer computes in floats, by path.
    """

    layers: dict[str, IntegerLayer]
    outputs: dict[str, Int8]
    notes: dict[str, str]


class Flow:
    """Who computes and reads what in a marked graph, as long as it is not changed."""

    def __init__(self, marked: Marked):
        self.marked, self.tree = marked, marked.tree
        graph = marked.tree.subgraphs[0]
        self.producers, self.readers = rewriting.producers(graph), rewriting.readers(graph)
        self.ends = {int(i) for i in graph.outputs}
        self.uses: dict[int, Use] = {}
        for path, operators in marked.operators.items():
            for op in operators:
                position = DATA_INPUT.get(flatbuffer.builtin_code(self.tree, op), 0)
                x, output = int(op.inputs[position]), int(op.outputs[0])
                self.uses[id(op)] = Use(path, op, x, output)

    def lowest(self, tensor: int) -> float:
        """A number that no value of the tensor is below."""
        op = self.producers.get(tensor)
        if op is None:
            return -math.inf
        if id(op) in self.uses:
            return self.marked.layers[self.uses[id(op)].path].act_min
        code = flatbuffer.builtin_code(self.tree, op)
        function = getattr(op.builtinOptions, "fusedActivationFunction", 0)
        activations = schema.ActivationFunctionType
        if code in _NOT_NEGATIVE or function in (activations.RELU, activations.RELU6):
            return 0.0
        # An average is rounded, but never across 0, and padding adds zeros.
        return min(self.lowest(int(op.inputs[0])), 0.0) if code in _KEEPS_SIGN else -math.inf

    def int8_readers(self, tensor: int) -> list[Use] | None:
        """The quantized layers that read a tensor; None if something else reads it, too."""
        if tensor in self.ends:
            return None
        found = []
        for op in self.readers.get(tensor, []):
            if id(op) in self.uses:
                found.append(self.uses[id(op)])
                continue
            code = flatbuffer.builtin_code(self.tree, op)
            passes = code in PASSING and int(op.inputs[0]) == tensor
            behind = self.int8_readers(int(op.outputs[0])) if passes else None
            if behind is None:
                return None
            found += behind
        return found


def plan(flow: Flow, ranges: dict[str, tuple[float, float]]) -> Plan:
    """Take every layer whose grids and numbers integers can hold.

    Args:
        flow: of the marked model.
        ranges: smallest and largest output of each layer, used where no reader has a grid.
    """
    layers, notes = {}, {}
    for path, layer in flow.marked.layers.items():
        found = _integer_layer(layer)
        if isinstance(found, str):
            notes[path] = found
        else:
            layers[path] = found
    while True:
        outputs = {path: _output(flow, path, layers, ranges[path]) for path in layers}
        bad = {path: _unfit(flow, path, layers[path], outputs[path]) for path in layers}
        bad = {path: note for path, note in bad.items() if note}
        if not bad:
            return Plan(layers, outputs, notes)
        layers = {path: layer for path, layer in layers.items() if path not in bad}
        notes |= bad


def input_codes(flow: Flow, x: int, grid: UniformGrid) -> Int8:
    """Parameters of a float tensor on an input grid that int8 holds."""
    zero, _, high = int8_codes(grid, flow.lowest(x))
    top = 127 if math.isinf(high) else round(high / grid.step) + zero
    return Int8(float(np.float32(grid.step)), zero, top)


def _integer_layer(layer: PackedLayer) -> IntegerLayer | str:
    """The layer in integers, or why not."""
    if layer.op == "embedding" or is_transposed(layer):
        return f"float: no integers for {'embeddings' if layer.op == 'embedding' else 'transposed'}"
    if not isinstance(layer.grid, UniformGrid) or int8_codes(layer.grid) is None:
        return "float: its inputs are on no grid of int8"
    kernel = stock_kernel(layer, 8, smaller=False)
    one = len(kernel.terms) == 1 and kernel.offset is None
    if not one or kernel.container != "INT8" or kernel.terms[0].zero.any():
        return "float: its kernel is on no symmetric grid of int8"
    term = kernel.terms[0]
    if term.integers.min() < -127:
        return "float: its kernel is on no symmetric grid of int8"
    others = tuple(i for i in range(term.integers.ndim - 1))
    scale = np.broadcast_to(term.scale, layer.out_channels).astype(np.float64)
    used = term.integers.any(axis=others)
    # A channel of zeros gets a scale of its neighbours, so that its bias is as exact as theirs.
    scale = np.where(used, scale, scale[used].min() if used.any() else 2.0**-7)
    return IntegerLayer(term.integers, scale)


def _output(flow: Flow, path: str, layers, limits: tuple[float, float]) -> Int8:
    """The grid of those who read it, if it is one; else one for the range."""
    found = set()
    for use in flow.uses.values():
        if use.path == path:
            readers = flow.int8_readers(use.output) or []
            found |= {_wanted(flow, reader, use.output, layers) for reader in readers} or {None}
    unit = float(_unit(flow.marked.layers[path], layers[path]).max())
    if len(found) == 1 and None not in found and next(iter(found)).scale >= unit:
        return found.pop()
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    # Outputs finer than the steps of the sums would only make the rounded bias less exact.
    scale = float(np.float32(max((high - low) / 255, unit)))
    return Int8(scale, int(np.clip(round(-128 - low / scale), -128, 127)))


def _unit(layer: PackedLayer, integer: IntegerLayer) -> np.ndarray:
    """(C,) value of one step of the sums, the bias included."""
    return layer.grid.step * integer.scale


def _wanted(flow: Flow, reader: Use, tensor: int, layers) -> Int8 | None:
    grid = flow.marked.layers[reader.path].grid
    if reader.path not in layers or flow.lowest(tensor) != flow.lowest(reader.x):
        return None
    return input_codes(flow, tensor, grid)


def _unfit(flow: Flow, path: str, integer: IntegerLayer, output: Int8) -> str:
    """Why the sums of a layer do not fit its output; empty if they do."""
    layer = flow.marked.layers[path]
    unit = _unit(layer, integer)
    bias = np.zeros(1) if layer.bias is None else layer.bias.astype(np.float64)
    if (np.abs(bias / unit) > _LARGEST_BIAS).any():
        return "float: its bias is too large for int32"
    if (unit / output.scale < 2.0**-31).any():
        return "float: its sums are too fine for its outputs"
    return ""
