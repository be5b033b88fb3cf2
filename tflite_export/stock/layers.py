"""Put stock operators in the place of the marked ones of a converted model."""

from __future__ import annotations

import dataclasses

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export import flatbuffer
from tflite_export.layer import PackedLayer
from tflite_export.marked import Marked
from tflite_export.stock.embedding import add_embedding
from tflite_export.stock.graph import StockGraph
from tflite_export.stock.grids import clamped, int8_codes, quantized_input
from tflite_export.stock.kernels import StockKernel
from tflite_export.stock.operators import (
    FUSED,
    add_convolution,
    add_dense,
    add_kernel,
    bias_of,
    channel_axis,
    file_order,
    is_transposed,
    padded,
)
from tflite_export.stock.plan import PASSING, Flow, Int8, Plan, Use, input_codes
from tflite_export.stock.transposed import add_transposed

Ends = tuple[Use, int, int]
"""A use of a layer, and the tensors that it reads, rounded to its grid, and writes in the file."""


class StockLayers:
    """Walks over the operators of a marked model once and writes the new list.

    A float tensor may have an int8 form. Who needs floats makes the int8 form dequantized; what is
    needed in neither form is never computed.

    Args:
        marked: is changed.
        flow: of it.
        kernels: the kernels of the layers that compute in floats.
        plan: the layers that compute in integers.
    """

    def __init__(self, marked: Marked, flow: Flow, kernels: dict[str, StockKernel], plan: Plan):
        self.marked, self.flow, self.kernels, self.plan = marked, flow, kernels, plan
        self.graph = StockGraph(marked.tree)
        self._int8: dict[int, tuple[int, Int8]] = {}  # int8 forms by float tensor
        self._lacking: set[int] = set()  # float tensors that only their int8 form is there of
        self._inputs: dict[tuple, int] = {}  # quantized inputs by tensor and grid
        self._kernels: dict[str, int] = {}  # dequantized kernels by path

    def write(self) -> list[Ends]:
        """Replace the operators; return where each use of a layer is, in order."""
        graph, operators, ends = self.graph.graph, [], []
        for op in graph.operators:
            use = self.flow.uses.get(id(op))
            if use is not None and use.path in self.plan.layers:
                ends.append(self._integer(use))
            elif use is not None:
                ends.append(self._float(use))
            elif not self._passed(op):
                self._materialize(op.inputs if op.inputs is not None else [])
                operators += self.graph.take()
                operators.append(op)
            operators += self.graph.take()
        self._materialize(graph.outputs)
        graph.operators = operators + self.graph.take()
        return ends

    def _materialize(self, tensors) -> None:
        """Dequantize what is needed as floats."""
        for tensor in map(int, tensors):
            if tensor in self._lacking:
                self._lacking.discard(tensor)
                self.graph.add("DEQUANTIZE", [self._int8[tensor][0]], tensor, version=2)

    def _float(self, use: Use) -> Ends:
        """A layer in floats."""
        layer, kernel = self.marked.layers[use.path], self.kernels[use.path]
        self._materialize([use.x])
        if layer.op == "embedding":
            add_embedding(self.graph, use.path, layer, kernel, use.x, use.output)
            return use, use.x, use.output
        x = self._shared(use, layer, self._rounded)
        if use.path not in self._kernels:
            self._kernels[use.path] = add_kernel(self.graph, use.path, layer, kernel)
        bias = self.graph.constant(bias_of(layer), "FLOAT32")
        inputs = [x, self._kernels[use.path], bias]
        if is_transposed(layer):
            add_transposed(self.graph, layer, inputs, int(use.operator.inputs[0]), use.output)
        else:
            self._operator(layer, inputs, use.output, None)
        return use, x, use.output

    def _operator(self, layer: PackedLayer, inputs, output: int, version: int | None) -> None:
        fused = FUSED[layer.act_min, layer.act_max]
        if layer.op == "dense":
            add_dense(self.graph, inputs, output, fused, version)
            return
        inputs = [padded(self.graph, layer, inputs[0]), *inputs[1:]]
        add_convolution(self.graph, layer, inputs, output, fused, version)

    def _shared(self, use: Use, layer: PackedLayer, make) -> int:
        """What `make` gives for an input and a grid, made once."""
        fields = dataclasses.astuple(layer.grid)
        values = tuple(np.asarray(field).tobytes() for field in fields)
        key = (use.x, make.__name__, type(layer.grid), values)
        if key not in self._inputs:
            self._inputs[key] = make(use, layer)
        return self._inputs[key]

    def _rounded(self, use: Use, layer: PackedLayer) -> int:
        return quantized_input(self.graph, use.x, layer.grid, self.flow.lowest(use.x))

    def _integer(self, use: Use) -> Ends:
        """A layer in integers."""
        layer, integer = self.marked.layers[use.path], self.plan.layers[use.path]
        x = self._codes(use, layer)
        axis, unit = channel_axis(layer), layer.grid.step * integer.scale
        zeros = np.zeros(len(unit), np.int64)
        steps = file_order(layer, integer.steps)
        kernel = self.graph.constant(steps, "INT8", (integer.scale, zeros, axis), use.path)
        bias = np.rint(bias_of(layer) / unit).astype(np.int64)
        bias = self.graph.constant(bias, "INT32", (unit, zeros, 0))
        form = self.plan.outputs[use.path]
        output = self._int8_tensor(use.output, form)
        version = {"dense": 4}.get(layer.op, 6 if layer.groups > 1 and layer.op == "conv2d" else 3)
        self._operator(layer, [x, kernel, bias], output, version)
        self._int8[use.output] = self._cut(layer, output, form), form
        self._lacking.add(use.output)
        return use, x, output

    def _int8_tensor(self, like: int, form: Int8) -> int:
        return self.graph.tensor(self.graph.shape(like), "INT8", (form.scale, form.zero, 0))

    def _cut(self, layer: PackedLayer, tensor: int, form: Int8) -> int:
        """The tensor without codes above the top one."""
        if form.top == 127 or layer.act_max <= form.scale * (form.top - form.zero):
            return tensor
        top = self.graph.constant(np.array(form.top), "INT8", (form.scale, form.zero, 0))
        return self.graph.add("MINIMUM", [tensor, top], self._int8_tensor(tensor, form), 2)

    def _codes(self, use: Use, layer: PackedLayer) -> int:
        """The int8 input of a layer."""
        wanted = input_codes(self.flow, use.x, layer.grid)
        tensor, form = self._int8.get(use.x, (None, None))
        if form == wanted:
            return tensor
        return self._shared(use, layer, self._quantized)

    def _quantized(self, use: Use, layer: PackedLayer) -> int:
        self._materialize([use.x])
        lowest = self.flow.lowest(use.x)
        zero, low, high = int8_codes(layer.grid, lowest)
        x = clamped(self.graph, use.x, low, high, lowest)
        output = self._int8_tensor(use.x, Int8(layer.grid.step, zero))
        return self.graph.add("QUANTIZE", [x], output)

    def _passed(self, op: schema.OperatorT) -> bool:
        """Give an operator that int8 passes through its int8 form, if there is one of its input."""
        version = PASSING.get(flatbuffer.builtin_code(self.graph.tree, op))
        source = int(op.inputs[0]) if version else None
        if source not in self._int8:
            return False
        tensor, form = self._int8[source]
        output = self._int8_tensor(int(op.outputs[0]), form)
        self.graph.add_alike(op, [tensor, *op.inputs[1:]], output, version)
        self._int8[int(op.outputs[0])] = output, form
        self._lacking.add(int(op.outputs[0]))
        return True
