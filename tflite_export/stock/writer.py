"""A stock TFLite file: builtin operators only, which every interpreter runs without our library.

In the float form each quantized layer becomes

    input -> operators that round it to its grid -> float operator -> output
                        stored integers -> DEQUANTIZE ---^

so the runtime never quantizes anything by rules of its own.
"""

from __future__ import annotations

import copy

import keras
import numpy as np

from tflite_export import flatbuffer, rewriting
from tflite_export.collect import PackedModel
from tflite_export.layer import PackedLayer
from tflite_export.marked import Marked, convert_marked
from tflite_export.stock.kernels import StockKernel, stock_kernel
from tflite_export.stock.layers import StockLayers
from tflite_export.stock.plan import Flow, Plan, plan
from tflite_export.stock.ranges import output_ranges
from tflite_export.tflite_writer import float_kernel_bytes
from tflite_export.written import Stored, WrittenFile

ACTIVATIONS = ("float", "int8")
"""Types of what flows between the layers."""


def write_stock(
    model: keras.Model,
    packed: PackedModel,
    activations: str = "float",
    sample=None,
    narrowest: int = 2,
) -> WrittenFile:
    """The stock TFLite file of a collected model.

    Args:
        model: frozen.
        packed: what was collected from it.
        activations: "float", or "int8": layers whose grids allow it compute in integers.
        sample: inputs, an array or a structure of arrays as the model takes it, which set the
            ranges of tensors that no quantizer has seen ("int8" only). Random ones if None.
        narrowest: 2, 4 or 8: bits of the narrowest type of weights. Runtimes before
            ai-edge-litert 2.1 refuse files with INT2, those before 1.0 with INT4; all know INT8.

    Raises:
        ValueError: unknown options; a model that TFLite cannot hold, naming the layer.

    Example:
        write_stock(model, collect(model), narrowest=8).data
    """
    if activations not in ACTIVATIONS:
        raise ValueError(f"expected activations among {ACTIVATIONS}, got {activations!r}")
    if narrowest not in (2, 4, 8):
        raise ValueError(f"expected narrowest among (2, 4, 8), got {narrowest!r}")
    marked = convert_marked(model, packed)
    kernels = {path: stock_kernel(layer, narrowest) for path, layer in marked.layers.items()}
    if activations == "float":
        return _write(marked, Flow(marked), kernels, Plan({}, {}, {}))
    in_floats = copy.deepcopy(marked)
    in_floats = _write(in_floats, Flow(in_floats), kernels, Plan({}, {}, {}))
    ranges = output_ranges(in_floats, model, packed, sample)
    flow = Flow(marked)
    return _write(marked, flow, kernels, plan(flow, ranges))


def _write(
    marked: Marked, flow: Flow, kernels: dict[str, StockKernel], integers: Plan
) -> WrittenFile:
    """The file, with some layers in integers. `marked` is used up."""
    tree, graph = marked.tree, marked.tree.subgraphs[0]
    floats = _other_kernel_bytes(flow)
    uses = StockLayers(marked, flow, kernels, integers).write()
    ends = [(use.path, graph.tensors[x], graph.tensors[y]) for use, x, y in uses]
    rewriting.remove_dead(tree)
    stored = {
        path: _stored(path, layer, kernels, integers) for path, layer in marked.layers.items()
    }
    tree.metadata = None  # of the converter: which runtime its own file would have needed
    flatbuffer.remove_unused(tree)
    flatbuffer.add_checksum(tree)
    place = {id(tensor): index for index, tensor in enumerate(graph.tensors)}
    inputs: dict[str, tuple[int, ...]] = dict.fromkeys(marked.layers, ())
    outputs = dict(inputs)
    for path, x, y in ends:
        inputs[path] += (place[id(x)],)
        outputs[path] += (place[id(y)],)
    data = flatbuffer.write(tree)
    return WrittenFile(data, marked.layers, {}, inputs, outputs, stored, floats)


def _other_kernel_bytes(flow: Flow) -> int:
    """Bytes of the kernels of layers that are not quantized."""
    graph = flow.tree.subgraphs[0]
    every = graph.operators
    graph.operators = [op for op in every if id(op) not in flow.uses]
    found = float_kernel_bytes(flow.tree)
    graph.operators = every
    return found


def _stored(
    path: str, layer: PackedLayer, kernels: dict[str, StockKernel], integers: Plan
) -> Stored:
    """How the kernel of a layer is in the file."""
    bias = 0 if layer.op == "embedding" else 4 * layer.out_channels
    if path in integers.layers:
        size = integers.layers[path].steps.size
        bits = int(np.max(layer.weight.bits))
        note = "integer operators" + (f", {bits}-bit codes in INT8" if bits < 8 else "")
        return Stored("INT8", size, size + 28 * layer.out_channels, note)
    kernel = kernels[path]
    note = ", ".join(filter(None, [integers.notes.get(path, ""), kernel.note]))
    return Stored(kernel.container, kernel.code_bytes, kernel.total_bytes + bias, note)
