"""Builtin float operators for each geometry of a packed layer."""

from __future__ import annotations

import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.layer import PackedLayer
from tflite_export.stock.graph import StockGraph
from tflite_export.stock.kernels import StockKernel, Term, along

FUSED = {
    (-math.inf, math.inf): schema.ActivationFunctionType.NONE,
    (0.0, math.inf): schema.ActivationFunctionType.RELU,
    (-1.0, 1.0): schema.ActivationFunctionType.RELU_N1_TO_1,
    (0.0, 6.0): schema.ActivationFunctionType.RELU6,
}
"""Activations of operators by the range that they leave."""


def is_transposed(layer: PackedLayer) -> bool:
    """Whether TFLite calls this a transposed convolution."""
    return max(layer.input_dilations) > 1


def file_order(layer: PackedLayer, kernel: np.ndarray) -> np.ndarray:
    """A kernel, its channels along the last axis, in TFLite's order: OHWI, [out, in], 1HWO.

    A table stays as it is.
    """
    if layer.op == "embedding":
        return kernel
    if layer.op == "depthwise_conv2d":
        return kernel[None]
    if is_transposed(layer):  # ours is that of the equivalent convolution
        kernel = kernel[::-1, ::-1]
    return np.ascontiguousarray(np.moveaxis(kernel, -1, 0))


def channel_axis(layer: PackedLayer) -> int:
    """Axis of the channels in TFLite's order."""
    if layer.op == "embedding":
        return layer.weight.channel_axis % 2
    return 3 if layer.op == "depthwise_conv2d" else 0


def add_kernel(graph: StockGraph, path: str, layer: PackedLayer, kernel: StockKernel) -> int:
    """The float tensor of a kernel in TFLite's order: its constants dequantized and added up.

    The constants are named after the layer's path.
    """
    if not kernel.terms:
        return graph.constant(file_order(layer, kernel.values), "FLOAT32", name=path)
    total, axis = None, channel_axis(layer)
    for term in kernel.terms:
        values = _dequantized(graph, path, file_order(layer, term.integers), term, axis)
        total = values if total is None else graph.add("ADD", [total, values])
    if kernel.offset is None:
        return total
    offset = along(kernel.offset, len(graph.shape(total)), axis)
    return graph.add("ADD", [total, graph.constant(offset, "FLOAT32")])


def _dequantized(graph: StockGraph, path: str, integers: np.ndarray, term: Term, axis: int) -> int:
    """One constant, dequantized. INT16 has one scale only; others are multiplied in."""
    scale, several = term.scale, term.scale.size > 1
    multiplied = term.container == "INT16" and several
    given = (np.ones(1), term.zero[:1], 0) if multiplied else (scale, term.zero, axis)
    stored = graph.constant(integers, term.container, given, path)
    version = {"INT2": 7, "INT4": 6, "INT8": 5 if several else 2, "INT16": 3}[term.container]
    values = graph.add("DEQUANTIZE", [stored], version=version)
    if not multiplied:
        return values
    factors = graph.constant(along(scale, integers.ndim, axis), "FLOAT32")
    return graph.add("MUL", [values, factors])


def bias_of(layer: PackedLayer) -> np.ndarray:
    """The bias, zeros if there is none: some runtimes want one."""
    return np.zeros(layer.out_channels, np.float32) if layer.bias is None else layer.bias


def add_dense(graph: StockGraph, inputs: list[int], output: int, fused: int, version=None) -> None:
    """FULLY_CONNECTED over the last axis."""
    keeps = len(graph.shape(output)) > 2
    version = max(version or 1, 5 if keeps else 1)
    graph.add(
        "FULLY_CONNECTED", inputs, output, version, fusedActivationFunction=fused, keepNumDims=keeps
    )


def padded(graph: StockGraph, layer: PackedLayer, x: int) -> int:
    """The input with a layer's explicit padding, zeros; int8 has its zero point there."""
    if isinstance(layer.padding, str) or not np.any(layer.padding):
        return x
    pads = [(0, 0), *layer.padding, (0, 0)]
    sizes = zip(graph.shape(x), pads, strict=True)
    shape = [n if n < 0 else n + before + after for n, (before, after) in sizes]
    kind = "FLOAT32" if graph.kind(x) == schema.TensorType.FLOAT32 else "INT8"
    wide = graph.tensor(shape, kind)
    graph.graph.tensors[wide].quantization = graph.graph.tensors[x].quantization
    amounts = graph.constant(np.array(pads), "INT32")
    return graph.add("PAD", [x, amounts], wide, 1 if kind == "FLOAT32" else 2)


def add_convolution(
    graph: StockGraph, layer: PackedLayer, inputs: list[int], output: int, fused: int, version=None
) -> None:
    """CONV_2D or DEPTHWISE_CONV_2D; the input has its explicit padding already."""
    same = layer.padding == "same"
    dilated = max(layer.dilations) > 1
    options = {
        "padding": schema.Padding.SAME if same else schema.Padding.VALID,
        "strideH": layer.strides[0],
        "strideW": layer.strides[1],
        "dilationHFactor": layer.dilations[0],
        "dilationWFactor": layer.dilations[1],
        "fusedActivationFunction": fused,
    }
    if layer.op == "depthwise_conv2d":
        options["depthMultiplier"] = layer.out_channels // layer.groups
        graph.add("DEPTHWISE_CONV_2D", inputs, output, version or 1 + dilated, **options)
    else:
        lowest = 6 if layer.groups > 1 else 1 + dilated
        graph.add("CONV_2D", inputs, output, version or lowest, **options)
