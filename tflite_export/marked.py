"""A converted model in which the operator of each quantized layer is known.

The baked model (see `bake`) goes through the stock converter; then each marker is found by its
content. The operators are still the builtin ones: each writer puts in their place what its file
is to hold.
"""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export import flatbuffer, rewriting
from tflite_export.bake import bake
from tflite_export.collect import PackedModel
from tflite_export.converter import ConversionError, convert
from tflite_export.fusing import fuse_activations
from tflite_export.layer import PackedLayer

ACTIVATION_RANGES = {
    schema.ActivationFunctionType.NONE: (-math.inf, math.inf),
    schema.ActivationFunctionType.RELU: (0.0, math.inf),
    schema.ActivationFunctionType.RELU_N1_TO_1: (-1.0, 1.0),
    schema.ActivationFunctionType.RELU6: (0.0, 6.0),
}
"""What the activations that builtin operators hold do to an output."""

_NO_ACTIVATION = schema.ActivationFunctionType.NONE

_Op = schema.BuiltinOperator

_OPERATORS = {
    "dense": (_Op.FULLY_CONNECTED,),
    "conv2d": (_Op.CONV_2D, _Op.TRANSPOSE_CONV),
    "depthwise_conv2d": (_Op.DEPTHWISE_CONV_2D,),
    "embedding": (_Op.GATHER,),
}
"""What the converter makes of each kind of packed layer."""

_DATA_KERNEL_BIAS = {
    _Op.FULLY_CONNECTED: (0, 1, 2),
    _Op.CONV_2D: (0, 1, 2),
    _Op.DEPTHWISE_CONV_2D: (0, 1, 2),
    _Op.TRANSPOSE_CONV: (2, 1, 3),
    _Op.GATHER: (1, 0, None),
}
"""Positions among the inputs of an operator."""

_BARRIERS = (
    ("cos", _Op.COS),
    ("sin", _Op.SIN),
    ("exp", _Op.EXP),
)
"""Operations of `keras.ops` that keep the converter from merging across them (see `bake`), and that
models rarely have themselves."""


@dataclasses.dataclass(frozen=True)
class Marked:
    """A converted model.

    Args:
        tree: the file; barriers are taken out, inputs and outputs are in the model's order.
        operators: the operators of each quantized layer by path, one a use. They read a marker
            as their kernel.
        layers: the packed layers by path, with what the converter fused into their operators:
            an activation, a constant sum.
    """

    tree: schema.ModelT
    operators: dict[str, list[schema.OperatorT]]
    layers: dict[str, PackedLayer]


def convert_marked(model: keras.Model, packed: PackedModel, batch: int | None = None) -> Marked:
    """Convert a collected model with markers as kernels, and find them.

    Args:
        batch: the batch size of the file; None for any, or 1 where TFLite needs one (recurrent
            layers). A model that fixes it keeps its own.

    Raises:
        ValueError: if TFLite cannot hold the model; if the converter changed, dropped or
            duplicated a kernel, naming the layer.
    """
    try:
        plain, tree, markers = _converted(model, packed, batch)
    except ConversionError:
        if batch is not None:
            raise
        plain, tree, markers = _converted(model, packed, 1)
    operators = _find_markers(tree, packed, markers)
    fuse_activations(tree, operators)
    rewriting.fix_reshapes(tree)
    rewriting.merge_reshapes(tree)
    rewriting.remove_dead(tree)
    structure = None if isinstance(model, keras.Sequential) else model.output
    _order_ends(tree, [tensor.name for tensor in plain.inputs], structure)
    layers = {path: _fused_layer(tree, ops, packed, path) for path, ops in operators.items()}
    return Marked(tree, operators, layers)


def data_input(tree: schema.ModelT, operator: schema.OperatorT) -> int:
    """The tensor that a marked operator reads beside its kernel."""
    position = _DATA_KERNEL_BIAS[flatbuffer.builtin_code(tree, operator)][0]
    return int(operator.inputs[position])


def _converted(model: keras.Model, packed: PackedModel, batch: int | None):
    """Baked model, converted file without its barriers, and markers."""
    for barrier, code in _BARRIERS:
        plain, markers, count = bake(model, packed, barrier, batch)
        tree = flatbuffer.read(convert(plain))
        codes = [flatbuffer.builtin_code(tree, op) for op in tree.subgraphs[0].operators]
        if codes.count(code) <= count:  # more: the model has this operation itself
            rewriting.remove_unary(tree, code)
            return plain, tree, markers
    names = [barrier for barrier, _ in _BARRIERS]
    raise ValueError(f"model '{model.name}': expected one of {names} unused, got uses of all")


def _order_ends(tree, names: list[str], structure) -> None:
    """Put inputs and outputs in the order of the model; the converter sorts them by name.

    The outputs of a model that returns a dictionary get its keys as names.
    """
    graph, signature = tree.subgraphs[0], tree.signatureDefs[0]
    inputs = {entry.name.decode(): entry.tensorIndex for entry in signature.inputs}
    outputs = {entry.name.decode(): entry.tensorIndex for entry in signature.outputs}
    if set(inputs) != set(names) or len(outputs) != len(graph.outputs):
        raise ValueError(f"expected the inputs {names} in the file, got {sorted(inputs)}")
    graph.inputs = np.array([inputs[name] for name in names], np.int32)
    order = sorted(outputs, key=lambda name: (len(name), name))  # output_2 before output_10
    graph.outputs = np.array([outputs[name] for name in order], np.int32)
    if isinstance(structure, dict) and len(structure) == len(order):
        keys = dict(zip(order, sorted(structure), strict=True))  # as Keras flattens dictionaries
        for entry in signature.outputs:
            entry.name = str(keys[entry.name.decode()]).encode()


def _find_markers(tree, packed: PackedModel, markers) -> dict[str, list[schema.OperatorT]]:
    """The operators that read a marker, by path."""
    by_content = {marker.tobytes(): path for path, marker in markers.items()}
    graph = tree.subgraphs[0]
    operators: dict[str, list[schema.OperatorT]] = {}
    for op in graph.operators:
        path = _marked_path(tree, graph, op, by_content, packed)
        if path is not None:
            operators.setdefault(path, []).append(op)
    missing = [path for path in packed.layers if path not in operators]
    if missing:
        raise ValueError(
            f"layer '{missing[0]}': expected its kernel among the constants of the converted "
            f"file, got no match ({len(operators)} of {len(packed.layers)} layers matched); the "
            "converter merged a neighbouring operation into it"
        )
    return operators


def _marked_path(tree, graph, op, by_content, packed: PackedModel) -> str | None:
    """Path of the layer whose marker an operator reads as its kernel."""
    for position, index in enumerate(op.inputs if op.inputs is not None else []):
        if index < 0:
            continue
        data = flatbuffer.constant(tree, graph.tensors[index])
        path = None if data is None else by_content.get(data)
        if path is None:
            continue
        code = flatbuffer.builtin_code(tree, op)
        expected = _OPERATORS[packed.layers[path].packed.op]
        if code not in expected or position != _DATA_KERNEL_BIAS[code][1]:
            raise ValueError(
                f"layer '{path}': expected its kernel in builtin operator "
                f"{' or '.join(map(str, expected))}, got it as input {position} of {code}"
            )
        return path
    return None


def _fused_layer(tree, operators, packed: PackedModel, path: str) -> PackedLayer:
    """The layer with what is fused into its operators, which must be the same in all of them."""
    found = [_with_fused(tree, op, packed.layers[path].packed) for op in operators]
    if not all(_alike(found[0], other) for other in found):
        expected = "the same activation and constants behind every use of a shared layer"
        raise found[0].error(expected, "different ones")
    return found[0]


def _with_fused(tree, op, layer: PackedLayer) -> PackedLayer:
    """The layer with what is fused into its operator: activation, constant sum."""
    fused = getattr(op.builtinOptions, "fusedActivationFunction", _NO_ACTIVATION)
    if fused not in ACTIVATION_RANGES:
        raise layer.error(f"a fused activation among {list(ACTIVATION_RANGES)}", fused)
    low, high = ACTIVATION_RANGES[fused]
    bias, position = layer.bias, _DATA_KERNEL_BIAS[flatbuffer.builtin_code(tree, op)][2]
    if position is not None and len(op.inputs) > position and op.inputs[position] >= 0:
        data = flatbuffer.constant(tree, tree.subgraphs[0].tensors[op.inputs[position]])
        if data is None or len(data) != 4 * layer.out_channels:
            raise layer.error("a constant bias in the converted file", "another")
        added = np.frombuffer(data, "<f4")
        if added.any():
            bias = added if bias is None else bias + added
    return dataclasses.replace(layer, act_min=low, act_max=high, bias=bias)


def _alike(a: PackedLayer, b: PackedLayer) -> bool:
    """Whether two uses of a layer have the same activation and bias."""
    same_bias = (a.bias is None) == (b.bias is None) and np.array_equal(a.bias, b.bias)
    return same_bias and (a.act_min, a.act_max) == (b.act_min, b.act_max)
