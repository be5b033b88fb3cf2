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
