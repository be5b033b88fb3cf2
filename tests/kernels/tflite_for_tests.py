"""Minimal .tflite files of packed layers in a row, made by hand through the schema."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

NAMES = {
    "dense": "KerasbitsDense",
    "conv2d": "KerasbitsConv2D",
    "depthwise_conv2d": "KerasbitsDepthwiseConv2D",
    "embedding": "KerasbitsEmbedding",
}


def chain(
    blobs,
    names,
    shapes,
    blob_type=schema.TensorType.UINT8,
    input_type=schema.TensorType.FLOAT32,
    dynamic=False,
):
    """A model that runs blob after blob; `shapes` are those of the input and of each output.

    `dynamic` leaves the first axis of all of them open.
    """
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs = 3, [graph]
    model.buffers = [schema.BufferT()]
    model.operatorCodes, graph.tensors, graph.operators = [], [], []
    for i, shape in enumerate(shapes):
        kind = schema.TensorType.FLOAT32 if i else input_type
        graph.tensors.append(_tensor(f"x{i}", shape, kind, 0))
        if dynamic:
            graph.tensors[-1].shapeSignature = [-1, *shape[1:]]
    for i, (blob, name) in enumerate(zip(blobs, names, strict=True)):
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(blob, np.uint8)
        model.buffers.append(buffer)
        size = len(blob) // (1 if blob_type == schema.TensorType.UINT8 else 4)
        graph.tensors.append(_tensor(f"blob{i}", [size], blob_type, len(model.buffers) - 1))
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode, code.version = name, 1
        model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = i
        operator.inputs, operator.outputs = [i, len(graph.tensors) - 1], [i + 1]
        graph.operators.append(operator)
    graph.inputs, graph.outputs = [0], [len(shapes) - 1]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(name, shape, kind, buffer):
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, buffer
    return tensor


def add(activation, blob=None, shape=(1, 4, 4, 3), constant=None, apart=False):
    """A model of one addition: of two inputs, or of a packed convolution's output and an input.

    Args:
        activation: a `schema.ActivationFunctionType` that is fused.
        blob: of the convolution; its input is the first one.
        shape: of all tensors.
        constant: values in place of the second input.
        apart: add the second input to itself, and leave the convolution's output alone.
    """
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs = 3, [graph]
    model.buffers = [schema.BufferT()]
    names = ["x", "s", "y", "c"]
    graph.tensors = [_tensor(name, shape, schema.TensorType.FLOAT32, 0) for name in names]
    model.operatorCodes, graph.operators = [_code(schema.BuiltinOperator.ADD)], []
    graph.inputs, graph.outputs = [0, 1], [2]
    if constant is not None:
        graph.tensors[1].buffer = _buffer(model, constant.tobytes())
        graph.inputs = [0]
    if blob is not None:
        model.operatorCodes.append(_code(schema.BuiltinOperator.CUSTOM, NAMES["conv2d"]))
        buffer = _buffer(model, blob)
        graph.tensors.append(_tensor("blob", [len(blob)], schema.TensorType.UINT8, buffer))
        graph.operators.append(_operator(1, [0, 4], [3]))
    first = 1 if apart else 0 if blob is None else 3
    graph.operators.append(_operator(0, [first, 1], [2]))
    graph.operators[-1].builtinOptionsType = schema.BuiltinOptions.AddOptions
    graph.operators[-1].builtinOptions = schema.AddOptionsT()
    graph.operators[-1].builtinOptions.fusedActivationFunction = activation
    graph.outputs = [2, 3] if apart else [2]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _code(builtin, name=None):
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.customCode, code.version = name, 1
    return code


def _operator(code, inputs, outputs):
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, inputs, outputs
    return operator


def _buffer(model, data):
    """Its index."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1
