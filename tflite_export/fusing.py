"""Put activations into the builtin operators in front of them, as the converter would.

The barriers of `bake` keep the converter from doing it.
"""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema

from tflite_export import flatbuffer, rewriting

_Op = schema.BuiltinOperator
_Function = schema.ActivationFunctionType

_ACTIVATIONS = {
    _Op.RELU: _Function.RELU,
    _Op.RELU_N1_TO_1: _Function.RELU_N1_TO_1,
    _Op.RELU6: _Function.RELU6,
}
_WITH_ACTIVATION = (_Op.CONV_2D, _Op.DEPTHWISE_CONV_2D, _Op.FULLY_CONNECTED)
"""Builtin operators with an activation of their own in every runtime."""


def fuse_activations(tree: schema.ModelT, operators: dict[str, list[schema.OperatorT]]) -> None:
    """Put the activations behind builtin operators into them.

    Only where every use of a layer has the same one, so that one layer serves all uses.

    Args:
        tree: the file.
        operators: the operators of each layer by path, one a use.
    """
    for uses in operators.values():
        if any(flatbuffer.builtin_code(tree, op) not in _WITH_ACTIVATION for op in uses):
            continue
        behind = [only_reader(tree, op) for op in uses]
        codes = {None if op is None else flatbuffer.builtin_code(tree, op) for op in behind}
        function = _ACTIVATIONS.get(codes.pop()) if len(codes) == 1 else None
        if function is not None:
            rewriting.take_out(tree, 0, behind)
            for op in uses:
                op.builtinOptions.fusedActivationFunction = function


def only_reader(tree, op) -> schema.OperatorT | None:
    """The one operator that reads the output of `op`, past those that only change its shape."""
    graph = tree.subgraphs[0]
    found, tensor = rewriting.readers(graph), int(op.outputs[0])
    while True:
        behind = found.get(tensor, [])
        if len(behind) != 1 or tensor in graph.outputs:
            return None
        passes = flatbuffer.builtin_code(tree, behind[0]) in rewriting.SHAPE_OPERATORS
        if not passes or int(behind[0].inputs[0]) != tensor:
            return behind[0]
        tensor = int(behind[0].outputs[0])
