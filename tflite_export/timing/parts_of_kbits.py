"""The nodes of a .kbits file, each as a file of its own."""

from __future__ import annotations

import copy

import numpy as np

from tflite_export import kbits_generated as schema
from tflite_export.blob.writer import read_blob
from tflite_export.kbits import container
from tflite_export.timing.part import Part, Shape

_NAMES = {code: name.lower() for name, code in vars(schema.Op).items() if not name.startswith("_")}


def kbits_parts(data: bytes) -> list[Part]:
    """What runs, in order.

    Raises:
        ValueError: if the file is corrupt.
    """
    model = container.read(data)
    return [_part(model, number, node) for number, node in enumerate(model.nodes or [])]


def _part(model: schema.ModelT, number: int, node: schema.NodeT) -> Part:
    inputs = [int(i) for i in node.inputs]
    read = [i for i in inputs if model.tensors[i].data is None]
    shapes = [_shape(model.tensors[i]) for i in (*read[:1], int(node.output))]
    name, op, macs = f"({_NAMES[node.op]} {number})", _NAMES[node.op], 0
    if node.op == schema.Op.PACKED:
        blob = model.blobs[node.blob]
        layer = read_blob(np.asarray(blob.data, np.uint8).tobytes())
        name, op = (blob.path.decode() if blob.path else name), f"packed {layer.op}"
        macs = 0 if layer.op == "embedding" else int(np.prod(shapes[-1])) * layer.row_size
    return Part(name, op, shapes[0] if read else (), shapes[-1], macs, _file(model, node, read))


def _file(model: schema.ModelT, node: schema.NodeT, read: list[int]) -> bytes:
    """A file of one node. Its tensors come in the order of their old numbers."""
    used = sorted({*map(int, node.inputs), int(node.output)})
    to_new = {old: new for new, old in enumerate(used)}
    alone, part = copy.copy(node), copy.copy(model)
    alone.inputs = [to_new[int(i)] for i in node.inputs]
    alone.output = to_new[int(node.output)]
    part.tensors = [copy.copy(model.tensors[i]) for i in used]
    part.inputs = sorted({to_new[i] for i in read})
    part.outputs = [alone.output]
    for number in (*part.inputs, *part.outputs):
        part.tensors[number].name = f"tensor{number}"
    part.blobs = []
    if node.op == schema.Op.PACKED:
        part.blobs, alone.blob = [model.blobs[node.blob]], 0
    part.nodes = [alone]
    return container.serialize(part)


def _shape(tensor: schema.TensorT) -> Shape:
    return () if tensor.shape is None else tuple(map(int, tensor.shape))
