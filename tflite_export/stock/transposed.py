"""TRANSPOSE_CONV for a convolution over a dilated input.

TFLite knows two paddings. SAME and VALID are taken where they give the layer's output; otherwise
the operator gives all that the input reaches, and the output is cut from that.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.layer import PackedLayer
from tflite_export.stock.graph import StockGraph

_STANDALONE = {(0.0, np.inf): "RELU", (-1.0, 1.0): "RELU_N1_TO_1", (0.0, 6.0): "RELU6"}
"""Activations by range. Older runtimes do not look for one in the operator itself."""

_NOMINAL = 1000
"""Pixels of an axis whose size is free."""


@dataclasses.dataclass(frozen=True)
class _Axis:
    """One axis: `size` input pixels, `window` of the kernel; `wanted` outputs of `reach` that the
    input reaches, the first `cut` of which are left out (fewer than none: zeros come first)."""

    size: int
    window: int
    stride: int
    cut: int
    wanted: int

    @property
    def reach(self) -> int:
        return (self.size - 1) * self.stride + self.window

    @property
    def is_same(self) -> bool:
        """Whether SAME padding gives the output."""
        cut = max((self.size - 1) * self.stride + self.window - self.wanted, 0) // 2
        return -(-self.wanted // self.stride) == self.size and cut == self.cut

    @property
    def is_valid(self) -> bool:
        """Whether VALID padding gives the output."""
        return self.cut == 0 and 0 <= self.wanted - self.reach < self.stride

    @property
    def zeros(self) -> tuple[int, int]:
        """Zeros around the input for an output that reaches as far as wanted."""
        before = -(min(self.cut, 0) // self.stride)
        after = -(min(self.reach - self.cut - self.wanted, 0) // self.stride)
        return before, after


def add_transposed(
    graph: StockGraph, layer: PackedLayer, inputs: list[int], sizes: int, output: int
) -> None:
    """Add the operators of a transposed convolution.

    Args:
        graph: to add to.
        layer: with `input_dilations`.
        inputs: quantized float input, kernel, bias.
        sizes: tensor of the output's shape.
        output: float tensor to write.

    Raises:
        ValueError: dilations, which no Keras layer has beside strides; an image of unknown size,
            if the output must be cut.
    """
    if max(layer.dilations) > 1:
        raise layer.error("a transposed convolution of dilations (1, 1)", layer.dilations)
    x, kernel, bias = inputs
    axes = [_axis(graph, layer, x, kernel, i) for i in (0, 1)]
    activation = _STANDALONE.get((layer.act_min, layer.act_max))
    end = graph.tensor(graph.shape(output)) if activation else output
    if all(axis.is_same for axis in axes):
        _operator(graph, layer, [sizes, kernel, x, bias], end, schema.Padding.SAME)
    elif all(axis.is_valid for axis in axes):
        _operator(graph, layer, [sizes, kernel, x, bias], end, schema.Padding.VALID)
    else:
        _cut(graph, layer, inputs, axes, end)
    if activation:
        graph.add(activation, [end], output)


def _axis(graph: StockGraph, layer: PackedLayer, x: int, kernel: int, i: int) -> _Axis:
    size = graph.shape(x)[1 + i]
    size = _NOMINAL if size < 0 else size
    window, stride = graph.shape(kernel)[1 + i], layer.input_dilations[i]
    before, after = (0, 0) if layer.padding == "valid" else layer.padding[i]
    dilated = (size - 1) * stride + 1
    return _Axis(size, window, stride, window - 1 - before, dilated + before + after - window + 1)


def _operator(graph, layer, inputs, output, padding) -> None:
    rows, columns = layer.input_dilations
    graph.add("TRANSPOSE_CONV", inputs, output, 3, padding=padding, strideH=rows, strideW=columns)


def _cut(graph: StockGraph, layer: PackedLayer, inputs, axes: list[_Axis], output: int) -> None:
    x, kernel, bias = inputs
    batch, *image, channels = graph.shape(x)
    if min(image) < 0:
        raise layer.error("an image of known size for its cut transposed convolution", image)
    zeros = [axis.zeros for axis in axes]
    if np.any(zeros):
        padded = [a.size + sum(z) for a, z in zip(axes, zeros, strict=True)]
        around = graph.constant(np.array([(0, 0), *zeros, (0, 0)]), "INT32")
        x = graph.add("PAD", [x, around], graph.tensor([batch, *padded, channels]))
    full = [axis.reach + sum(z) * axis.stride for axis, z in zip(axes, zeros, strict=True)]
    out = graph.shape(output)[-1]
    whole = graph.tensor([batch, *full, out])
    sizes = _whole_sizes(graph, x, [*full, out])
    _operator(graph, layer, [sizes, kernel, x, bias], whole, schema.Padding.VALID)
    first = [a.cut + z[0] * a.stride for a, z in zip(axes, zeros, strict=True)]
    begin = graph.constant(np.array([0, *first, 0]), "INT32")
    size = graph.constant(np.array([-1, *(a.wanted for a in axes), -1]), "INT32")
    graph.add("SLICE", [whole, begin, size], output)


def _whole_sizes(graph: StockGraph, x: int, sizes: list[int]) -> int:
    """The shape tensor [batch, *sizes]."""
    batch = graph.shape(x)[0]
    if batch > 0:
        return graph.constant(np.array([batch, *sizes]), "INT32")
    outType = schema.TensorType.INT32
    shape = graph.add("SHAPE", [x], graph.tensor([4], "INT32"), outType=outType)
    ends = [graph.constant(np.array([n]), "INT32") for n in (0, 1)]
    first = graph.add("SLICE", [shape, *ends], graph.tensor([1], "INT32"))
    rest = graph.constant(np.array(sizes), "INT32")
    return graph.add("CONCATENATION", [first, rest], graph.tensor([4], "INT32"))
