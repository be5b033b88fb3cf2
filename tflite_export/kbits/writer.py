"""A .kbits file: packed layers and plain operations, with shapes for one batch size."""

from __future__ import annotations

import keras
from ai_edge_litert import schema_py_generated as tflite

from tflite_export import kbits_generated as schema
from tflite_export.blob.writer import section_sizes, write_blob
from tflite_export.collect import PackedModel
from tflite_export.folding import fold_neighbours
from tflite_export.kbits import container, elementwise, shapes, windows
from tflite_export.kbits import float_layers as floats
from tflite_export.kbits.fold import fold
from tflite_export.kbits.ids import take_ids_as_they_are
from tflite_export.kbits.translation import Translation
from tflite_export.layer import PackedLayer
from tflite_export.marked import Marked, convert_marked, data_input
from tflite_export.written import Stored, WrittenFile

_OP = tflite.BuiltinOperator

_TRANSLATORS = {
    **elementwise.TRANSLATORS,
    **windows.TRANSLATORS,
    **shapes.TRANSLATORS,
    _OP.CONV_2D: floats.convolution,
    _OP.DEPTHWISE_CONV_2D: floats.depthwise,
    _OP.FULLY_CONNECTED: floats.dense,
    _OP.TRANSPOSE_CONV: floats.transposed,
    _OP.GATHER: floats.embedding,
}


def write_kbits(model: keras.Model, packed: PackedModel) -> WrittenFile:
    """The .kbits file of a collected model, for a batch of 1 unless the model fixes another.

    Quantized layers are written as their blobs. Layers that stay float become blobs of floats.
    `docs/kbits_format.md` lists the other operations that a file can hold.

    Raises:
        ValueError: an operation that .kbits does not have, naming it and what it writes; a shape
            that is not known; a kernel that the converter changed.
    """
    return write_marked(fold_neighbours(convert_marked(model, packed, batch=1)))


def write_marked(marked: Marked) -> WrittenFile:
    """The .kbits file of a converted model whose packed layers are known. Its tree may change.

    Raises:
        ValueError: as `write_kbits`.
    """
    take_ids_as_they_are(marked.tree)
    t = Translation(marked.tree)
    inputs = _add_inputs(t)
    blobs = {path: write_blob(layer) for path, layer in marked.layers.items()}
    uses = {id(op): path for path, ops in marked.operators.items() for op in ops}
    numbers = {path: t.graph.blob(blob, path) for path, blob in blobs.items()}
    ends: dict[str, list[tuple[int, int]]] = {path: [] for path in blobs}
    for op in t.source.operators:
        path = uses.get(id(op))
        if path is None:
            _translate(t, op)
        else:
            x = t.tensor(data_input(t.tree, op))
            layer = marked.layers[path]
            ends[path].append(floats.write_packed(t, op, layer, x, numbers[path]))
    return _written(t, inputs, marked.layers, blobs, ends)


def _add_inputs(t: Translation) -> list[int]:
    names = _signature_names(t, "inputs")
    return [t.add_input(int(i), names.get(int(i), "")) for i in t.source.inputs]


def _signature_names(t: Translation, ends: str) -> dict[int, str]:
    """Names of inputs or outputs, as the model's signature has them, by tensor."""
    signatures = t.tree.signatureDefs or []
    return {e.tensorIndex: e.name.decode() for s in signatures[:1] for e in getattr(s, ends)}


def _translate(t: Translation, op: tflite.OperatorT) -> None:
    if fold(t, op):
        return
    translate = _TRANSLATORS.get(t.code(op))
    if translate is None:
        raise t.error(op, "an operation that .kbits has", "one that it does not have")
    translate(t, op)


def _written(t, inputs, layers: dict[str, PackedLayer], blobs, ends) -> WrittenFile:
    names, outputs = _signature_names(t, "outputs"), []
    for index in (int(i) for i in t.source.outputs):
        outputs.append(t.tensor(index))
        tensor = t.graph.tensors[outputs[-1]]
        tensor.name = tensor.name or names.get(index)
    finished = t.graph.finish(inputs, outputs)
    kept = {
        path: [pair for pair in pairs if pair[1] in finished.tensors]
        for path, pairs in ends.items()
    }
    of = finished.tensors
    stored = {
        path: Stored("packed", section_sizes(blob).get("codes", 0), len(blob))
        for path, blob in blobs.items()
    }
    return WrittenFile(
        data=container.serialize(finished.model),
        layers=layers,
        blobs=blobs,
        inputs={path: tuple(of[x] for x, _ in pairs) for path, pairs in kept.items()},
        outputs={path: tuple(of[y] for _, y in pairs) for path, pairs in kept.items()},
        stored=stored,
        float_bytes=_float_bytes(finished.model),
    )


def _float_bytes(model: schema.ModelT) -> int:
    """Bytes of the kernels that stayed float."""
    blobs = [bytes(blob.data) for blob in model.blobs if not blob.path]
    return sum(section_sizes(blob)["codes"] for blob in blobs)
