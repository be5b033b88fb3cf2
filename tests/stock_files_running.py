"""Run stock files without any delegate of ours, and look into them."""

import warnings

import keras
import numpy as np
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema
from keras import ops

from kerasbits.packed import FloatGrid
from tflite_export import flatbuffer
from tflite_export.collect import collect
from tflite_export.stock.writer import write_stock

RESOLVERS = litert.OpResolverType
NAMES = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
TYPES = {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}


def written(model, **options):
    """The stock file of a frozen model."""
    return write_stock(model, collect(model), **options)


class Runner:
    """A file in the stock interpreter, every tensor kept."""

    def __init__(self, data, resolver=RESOLVERS.AUTO, threads=1, keep=True):
        with warnings.catch_warnings():  # it warns of the memory that kept tensors take
            warnings.simplefilter("ignore")
            self.interpreter = litert.Interpreter(
                model_content=data,
                experimental_op_resolver_type=resolver,
                num_threads=threads,
                experimental_preserve_all_tensors=keep,
            )

    def __call__(self, *inputs):
        details = self.interpreter.get_input_details()
        for detail, x in zip(details, inputs, strict=True):
            self.interpreter.resize_tensor_input(detail["index"], x.shape)
        self.interpreter.allocate_tensors()
        for detail, x in zip(details, inputs, strict=True):
            self.interpreter.set_tensor(detail["index"], x)
        self.interpreter.invoke()
        outputs = self.interpreter.get_output_details()
        return [self.interpreter.get_tensor(detail["index"]) for detail in outputs]

    def tensor(self, index):
        return self.interpreter.get_tensor(index)

    def parameters(self, index):
        """Scale and zero point of a tensor."""
        detail = next(d for d in self.interpreter.get_tensor_details() if d["index"] == index)
        return detail["quantization"]


def operators(data):
    """Names of the operators, in order."""
    tree = flatbuffer.read(data)
    return [NAMES[flatbuffer.builtin_code(tree, op)] for op in tree.subgraphs[0].operators]


def kernels(file):
    """For each layer that computes in floats, the tensor of its kernel."""
    graph = flatbuffer.read(file.data).subgraphs[0]
    made = {int(i): op for op in graph.operators for i in op.outputs}
    return {path: int(made[ends[0]].inputs[1]) for path, ends in file.outputs.items()}


def constants(data):
    """Types of the stored constants that a DEQUANTIZE reads, sorted."""
    tree = flatbuffer.read(data)
    graph = tree.subgraphs[0]
    tensors = [
        graph.tensors[op.inputs[0]]
        for op in graph.operators
        if NAMES[flatbuffer.builtin_code(tree, op)] == "DEQUANTIZE"
    ]
    stored = [t for t in tensors if flatbuffer.constant(tree, t) is not None]
    return sorted(TYPES[t.type] for t in stored)


def tied_samples(model, file, runner, inputs):
    """Samples in which a rounded input is not the model's; each such value must be at a border."""
    packed, fed = collect(model), {path: [] for path in file.layers}

    def run(call, args, kwargs):
        if call.path in fed:
            fed[call.path].append(ops.convert_to_numpy(args[0]))
        return call.run(call.layer, args, kwargs)

    packed.graph.replay([ops.convert_to_tensor(x) for x in inputs], run)
    tied = np.zeros(len(inputs[0]), bool)
    for path, layer in file.layers.items():
        for x, tensor in zip(fed[path], file.inputs[path], strict=True):
            if layer.op == "embedding" or isinstance(layer.grid, FloatGrid):
                continue
            found = runner.tensor(tensor).reshape(x.shape)
            values = layer.grid.values(layer.grid.codes(x))
            differs = np.abs(found - values) > 1e-5 * np.abs(values).max()
            clean = differs & ~tied.reshape(-1, *[1] * (x.ndim - 1))
            limit = 1e-5 * np.abs(x).max()
            assert not (layer.grid.border_distance(x)[clean] > limit).any(), path
            tied |= differs.reshape(len(x), -1).any(axis=1)
    return tied


def relative_errors(found, expected):
    """Largest difference of each sample, relative to its largest value."""
    axes = tuple(range(1, expected.ndim))
    return np.abs(found - expected).max(axis=axes) / np.abs(expected).max(axis=axes)


def exact(layer, x):
    """A packed layer in float64: `x` are quantized values."""
    kernel = layer.weight.decode().astype(np.float64)
    x = ops.convert_to_tensor(x.astype(np.float64))
    if layer.op == "dense":
        y = ops.matmul(x, kernel)
    else:
        padding = layer.padding
        if not isinstance(padding, str):
            x, padding = ops.pad(x, [(0, 0), *padding, (0, 0)]), "valid"
        options = {"strides": layer.strides, "padding": padding, "dilation_rate": layer.dilations}
        if layer.op == "depthwise_conv2d":
            kernel = kernel.reshape(*kernel.shape[:2], layer.groups, -1)
            options["strides"] = layer.strides[0]
            y = ops.depthwise_conv(x, kernel, **options)
        else:
            y = ops.conv(x, kernel, **options)
    y = ops.convert_to_numpy(y)
    gain = 1.0 if layer.multiplier is None else layer.multiplier.astype(np.float64)
    y = y * gain + (0.0 if layer.bias is None else layer.bias)
    return np.clip(y, layer.act_min, layer.act_max)


def code_differences(file, runner):
    """For each layer in integers, how many codes its output is from the exact one at most."""
    found = {}
    for path, layer in file.layers.items():
        for x, y in zip(file.inputs[path], file.outputs[path], strict=True):
            codes, wanted = runner.tensor(x), runner.tensor(y)
            if codes.dtype != np.int8:
                continue
            step, zero = runner.parameters(x)
            values = step * (codes.astype(np.float64) - zero)
            scale, offset = runner.parameters(y)
            expected = exact(layer, values.reshape(_rank(layer, values)))
            expected = np.clip(np.rint(expected / scale) + offset, -128, 127)
            difference = np.abs(wanted.reshape(expected.shape) - expected).max()
            found[path] = max(found.get(path, 0), difference)
    return found


def _rank(layer, values):
    """Dense layers may read an image as it lies; theirs is a matrix."""
    return (-1, layer.in_channels) if layer.op == "dense" else values.shape


def small_mobilenet():
    """Inverted residual with depthwise convolutions, ReLU6 and explicit padding."""
    keras.utils.set_random_seed(2)
    layers = keras.layers
    inputs = keras.Input((12, 12, 3))
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(inputs)
    x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="stem")(x)
    x = start = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Conv2D(16, 1, use_bias=False, name="expand")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="filter")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Conv2D(8, 1, use_bias=False, name="project")(x)
    x = layers.Add()([layers.BatchNormalization()(x), start])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(5, name="logits")(x))


def small_resnet():
    """Two residual blocks, the second with a strided shortcut; max pooling between."""
    keras.utils.set_random_seed(1)
    layers = keras.layers

    def normed(x, channels, size, name, strides=1):
        x = layers.Conv2D(channels, size, strides, padding="same", use_bias=False, name=name)(x)
        return layers.BatchNormalization()(x)

    inputs = keras.Input((12, 12, 3))
    x = start = layers.ReLU()(normed(inputs, 8, 3, "stem"))
    x = layers.ReLU()(normed(x, 8, 3, "a1"))
    x = layers.ReLU()(layers.Add()([normed(x, 8, 3, "a2"), start]))
    start = normed(x, 16, 1, "shortcut", 2)
    x = layers.MaxPooling2D()(layers.ReLU()(normed(x, 16, 3, "b1")))
    x = layers.ReLU()(layers.Add()([normed(x, 16, 3, "b2"), start]))
    x = layers.Flatten()(layers.MaxPooling2D()(x))
    return keras.Model(inputs, layers.Dense(5, name="logits")(x))
