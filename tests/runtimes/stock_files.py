"""Tiny stock .tflite files, one for each way to store weights, and what they must give.

A case is an operator, a type of stored weights, and a form:
    dequantize  float32 input; DEQUANTIZE of the constant feeds the float operator
    hybrid      float32 input; the operator reads the constant (dynamic range)
    int8        int8 input and output; the operator reads the constant
"""

import dataclasses
import itertools

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

OPERATORS = (
    "FULLY_CONNECTED",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "TRANSPOSE_CONV",
    "EMBEDDING_LOOKUP",
)
BITS = {"INT2": 2, "INT4": 4, "INT8": 8, "INT16": 16}
FORMS = ("dequantize", "hybrid", "int8")

KERNELS = {
    "FULLY_CONNECTED": (5, 7),
    "CONV_2D": (5, 3, 3, 3),
    "DEPTHWISE_CONV_2D": (1, 3, 3, 5),
    "TRANSPOSE_CONV": (5, 3, 3, 3),
    "EMBEDDING_LOOKUP": (6, 5),
}
"""Shapes in TFLite's order. Odd sizes, so that a row of 2 or 4 bits ends inside a byte."""

CHANNEL_AXIS = {"DEPTHWISE_CONV_2D": 3}
STEP = 0.125
"""Value of one code of the int8 inputs."""
OUT_STEP = 0.5
"""Value of one code of the int8 outputs; their zero is code 3."""
OUT_ZERO = 3


@dataclasses.dataclass(frozen=True)
class Case:
    """One file: how the weights of one operator are stored."""

    operator: str
    container: str
    form: str
    per_channel: bool

    @property
    def name(self) -> str:
        scales = "channel" if self.per_channel else "tensor"
        return f"{self.operator}-{self.container}-{self.form}-{scales}"


def cases() -> list[Case]:
    """Every combination that has a meaning in the schema."""
    found = itertools.starmap(Case, itertools.product(OPERATORS, BITS, FORMS, (False, True)))
    return [
        case
        for case in found
        if not (case.form != "dequantize" and case.container == "INT16")
        and not (case.operator == "EMBEDDING_LOOKUP" and case.form == "int8")
    ]


@dataclasses.dataclass(frozen=True)
class StockFile:
    """Bytes of a file, an input, the right output, and how far an output may be off."""

    data: bytes
    x: np.ndarray
    y: np.ndarray
    tolerance: float


def stock_file(case: Case, versions: dict[str, int] | None = None) -> StockFile:
    """The file of a case, with random codes that use the whole range of their type.

    Args:
        versions: of operators, by name, if not 1.
    """
    rng = np.random.default_rng(sorted(KERNELS).index(case.operator))
    shape, axis = KERNELS[case.operator], CHANNEL_AXIS.get(case.operator, 0)
    top = 2 ** (BITS[case.container] - 1)
    codes = rng.integers(-top + (case.form == "int8"), top, shape)
    count = shape[axis] if case.per_channel else 1
    scale = np.float32(2.0 ** -BITS[case.container] * (1 + rng.random(count)))
    spread = scale.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    zero = 1 if case.form == "dequantize" and case.container != "INT16" else 0
    kernel = (codes - zero) * spread.astype(np.float64)
    bias = rng.integers(-9, 9, shape[axis])
    x = _input(case.operator, rng)
    graph = _Graph(versions or {})
    if case.form == "int8":
        unit = np.float32(STEP) * scale
        y = _apply(case.operator, x * STEP, kernel) + bias * np.broadcast_to(unit, bias.shape)
        y = np.clip(np.rint(y / OUT_STEP) + OUT_ZERO, -128, 127).astype(np.int8)
        tensors = [
            graph.tensor(x.shape, "INT8", scale=[STEP], zero=[0]),
            graph.constant(codes, case.container, scale, axis),
            graph.constant(bias, "INT32", unit, 0),
        ]
        out = graph.tensor(y.shape, "INT8", scale=[OUT_STEP], zero=[OUT_ZERO])
        tolerance = 1.0
    else:
        if case.operator != "EMBEDDING_LOOKUP":
            x = (x * np.float32(STEP)).astype(np.float32)
        y = _apply(case.operator, x, kernel)
        if case.operator != "EMBEDDING_LOOKUP":
            y = y + bias * STEP
        y = y.astype(np.float32)
        kind = "FLOAT32" if x.dtype == np.float32 else "INT32"
        stored = graph.constant(codes, case.container, scale, axis, zero)
        if case.form == "dequantize":
            floats = graph.tensor(shape, "FLOAT32")
            graph.add("DEQUANTIZE", [stored], [floats])
            stored = floats
        bias = graph.constant((bias * STEP).astype(np.float32), "FLOAT32")
        tensors = [graph.tensor(x.shape, kind), stored, bias]
        out = graph.tensor(y.shape, "FLOAT32")
        exact = case.form == "dequantize" or case.operator == "EMBEDDING_LOOKUP"
        # A hybrid operator rounds its input to 8 bits of the largest magnitude.
        tolerance = (1e-5 if exact else 0.02) * float(np.abs(y).max())
    ends = tensors[0], out
    if case.operator == "EMBEDDING_LOOKUP":
        tensors = tensors[:2]
    if case.operator == "TRANSPOSE_CONV":
        sizes = graph.constant(np.array(y.shape, np.int32), "INT32")
        tensors = [sizes, tensors[1], tensors[0], tensors[2]]
    graph.add(case.operator, tensors, [out])
    return StockFile(graph.file(*ends), x, y, tolerance)


def _input(operator, rng):
    if operator == "EMBEDDING_LOOKUP":
        return np.array([4, 0, 5, 4], np.int32)
    if operator == "FULLY_CONNECTED":
        return rng.integers(-100, 100, (1, 7)).astype(np.int8)
    channels = 5 if operator == "DEPTHWISE_CONV_2D" else 3
    return rng.integers(-100, 100, (1, 6, 5, channels)).astype(np.int8)


def _apply(operator, x, kernel):
    """The operator in loops: VALID, strides 1."""
    if operator == "EMBEDDING_LOOKUP":
        return kernel[x]
    if operator == "FULLY_CONNECTED":
        return x @ kernel.T
    rows, columns = kernel.shape[1:3]
    if operator == "TRANSPOSE_CONV":
        height, width = x.shape[1] + rows - 1, x.shape[2] + columns - 1
        y = np.zeros((1, height, width, len(kernel)))
        for i, j in np.ndindex(rows, columns):
            y[:, i : i + x.shape[1], j : j + x.shape[2]] += x @ kernel[:, i, j].T
        return y
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    y = 0
    for i, j in np.ndindex(rows, columns):
        part = x[:, i : i + height, j : j + width].astype(np.float64)
        tap = kernel[:, i, j]
        y = y + (part * tap if operator == "DEPTHWISE_CONV_2D" else part @ tap.T)
    return y


class _Graph:
    """A model of one subgraph, put together by hand."""

    def __init__(self, versions):
        self.versions = versions
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.subgraphs = 3, [self.graph]
        self.model.buffers, self.model.operatorCodes = [schema.BufferT()], []
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, shape, kind, buffer=0, scale=None, zero=None, axis=0):
        tensor = schema.TensorT()
        tensor.name, tensor.buffer = f"t{len(self.graph.tensors)}", buffer
        tensor.shape, tensor.type = list(shape), getattr(schema.TensorType, kind)
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.asarray(scale, np.float32)
            tensor.quantization.zeroPoint = np.asarray(zero, np.int64)
            tensor.quantization.quantizedDimension = axis
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, values, kind, scale=None, axis=0, zero=0):
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(_stored(values, kind), np.uint8)
        self.model.buffers.append(buffer)
        zeros = None if scale is None else np.full(len(scale), zero)
        index = len(self.model.buffers) - 1
        return self.tensor(values.shape, kind, index, scale, zeros, axis)

    def add(self, operator, inputs, outputs):
        code, node = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = getattr(schema.BuiltinOperator, operator)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = self.versions.get(operator, 1)
        node.opcodeIndex, node.inputs, node.outputs = len(self.graph.operators), inputs, outputs
        name = _OPTIONS.get(operator)
        if name:
            node.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            node.builtinOptions = getattr(schema, f"{name}T")()
            if name != "FullyConnectedOptions":
                node.builtinOptions.padding = schema.Padding.VALID
                node.builtinOptions.strideW = node.builtinOptions.strideH = 1
        if operator == "DEPTHWISE_CONV_2D":
            node.builtinOptions.depthMultiplier = 1
        self.model.operatorCodes.append(code)
        self.graph.operators.append(node)

    def file(self, first, last):
        self.graph.inputs, self.graph.outputs = [first], [last]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


_OPTIONS = {
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
    "DEQUANTIZE": "DequantizeOptions",
}


def _stored(values, kind):
    """Bytes of a constant; types below 8 bits fill a byte from its lowest bits on."""
    if kind not in ("INT2", "INT4"):
        return np.ascontiguousarray(values, np.dtype(kind.lower())).tobytes()
    width = BITS[kind]
    bits = (values.reshape(-1, 1) >> np.arange(width) & 1).astype(np.uint8)
    return np.packbits(bits.reshape(-1), bitorder="little").tobytes()
