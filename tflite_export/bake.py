"""A plain float copy of a model whose quantized kernels are markers, for the TFLite converter.

The converter sees ordinary layers. Each quantized kernel is replaced by random numbers that
occur nowhere else, so that its constant can be found in the converted file without doubt, even
where real kernels are all zero or equal. The marked operators are then replaced; what the
markers would compute never matters.

A converter that sees constants multiplies them out: a scaling before or after a layer would go
into its kernel, a padding into its geometry. So a nonlinear operation that the model does not
have, a barrier, stands before each marked layer, and behind it unless what follows is harmless.
The writer removes the barriers.
"""

from __future__ import annotations

import collections
import keyword
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tflite_export.collect import PackedModel
from tflite_export.graph import Call, Ref

KEEPS_APART = (
    keras.layers.Activation,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.MaxPooling2D,
    keras.layers.ReLU,
    keras.layers.Softmax,
)
"""What may follow a marked layer without a barrier: nothing here is merged into a kernel, and
activations are to be fused into the operator."""


def bake(
    model: keras.Model,
    packed: PackedModel,
    barrier: Callable[[Any], Any],
    batch: int | None = None,
) -> tuple[keras.Model, dict[str, np.ndarray], int]:
    """The plain model, the marker of each quantized layer by path, and the number of barriers.

    Batch norms that were folded are left out. Layers that stay float share their weights' values
    with the given model, which is not changed. The inputs get `batch` unless the model fixes it.
    """
    plain: dict[str, keras.layers.Layer] = {}
    markers: dict[str, np.ndarray] = {}
    fenced: dict[int, tuple[Any, Any]] = {}  # barriers by what they stand behind
    open_ended = _open_ended(packed)

    def make(call):
        if call.path not in plain:
            plain[call.path] = _plain(call, f"layer{len(plain)}")
        return plain[call.path]

    def fence(tensor):
        if id(tensor) not in fenced:
            fenced[id(tensor)] = (tensor, barrier(tensor))
        return fenced[id(tensor)][1]

    def run(call: Call, args, kwargs):
        if call.path in packed.folded:
            outputs = args[0]
        elif call.path in packed.layers:
            layer = make(call)
            outputs = layer(fence(args[0]), *args[1:], **kwargs)
            if call.path not in markers:
                markers[call.path] = _mark(layer, len(markers))
            if not _fusible(call.layer):
                outputs = call.layer.activation(fence(outputs))
        elif isinstance(call.layer, keras.layers.Layer):
            layer = make(call)
            outputs = call.run(layer, args, kwargs)
            layer.set_weights(call.layer.get_weights())
        else:
            return call.layer(*args, **kwargs)
        return fence(outputs) if call.outputs in open_ended else outputs

    given = keras.tree.flatten(model.inputs)
    batch = next((t.shape[0] for t in given if t.shape[0] is not None), batch)
    inputs = [
        keras.Input(batch_shape=(batch, *t.shape[1:]), dtype=t.dtype, name=_safe_name(t.name, i))
        for i, t in enumerate(given)
    ]
    outputs = packed.graph.replay(inputs, run)
    return keras.Model(inputs, outputs, name="kerasbits"), markers, len(fenced)


def _open_ended(packed: PackedModel) -> set[Ref]:
    """Outputs of marked layers that something else reads than what keeps apart.

    And of layers with several uses, so that the same is fused into each of them: nothing.
    """
    uses = collections.Counter(call.path for call in packed.graph.calls)
    ends = {}  # the last output of each layer, behind a folded batch norm
    for call in packed.graph.calls:
        if call.path in packed.layers or call.path in packed.folded:
            ends[call.outputs] = call
            if call.path in packed.folded:
                ends.pop(call.args[0])
    found = {ref for ref, call in ends.items() if uses[call.path] > 1}
    for call in packed.graph.calls:
        harmless = call.path in packed.layers or isinstance(call.layer, KEEPS_APART)
        if not harmless and call.path not in packed.folded:
            leaves = keras.tree.flatten((call.args, call.kwargs))
            found |= {leaf for leaf in leaves if isinstance(leaf, Ref) and leaf in ends}
    return found


def _fusible(layer) -> bool:
    """Whether an operator can hold the whole activation of a layer."""
    activations = keras.activations
    return layer.activation in (activations.linear, activations.relu, activations.relu6)


def _plain(call: Call, name: str) -> keras.layers.Layer:
    """A new layer. Its name is ours, because a leading underscore breaks the converter."""
    quantized = getattr(call.layer, "hosts", None)
    source = call.layer.plain_layer() if quantized else call.layer
    config = {**source.get_config(), "name": name}
    if quantized:
        config["use_bias"] = False  # ours is in the blob; random ones might be moved elsewhere
        config["activation"] = config["activation"] if _fusible(call.layer) else "linear"
    if quantized and "dilation_rate" in config:
        # The converter takes dilated convolutions apart. A dense kernel of the same reach gives
        # the same shapes, and its numbers are markers anyway.
        sizes = zip(config["kernel_size"], config["dilation_rate"], strict=True)
        config["kernel_size"] = tuple((size - 1) * rate + 1 for size, rate in sizes)
        config["dilation_rate"] = (1, 1)
    return source.__class__.from_config(config)


def _mark(layer: keras.layers.Layer, index: int) -> np.ndarray:
    """Fill the kernel with random numbers; the same index gives the same numbers."""
    random = np.random.default_rng([0x6B62, index])
    marker = random.standard_normal(layer.kernel.shape).astype(np.float32)
    layer.kernel.assign(marker)
    return marker


def _safe_name(name: str, index: int) -> str:
    """A name that the converter accepts: it fails on Python keywords and leading underscores."""
    name = name.lstrip("_")
    return f"input{index}" if not name or keyword.iskeyword(name) or name == "self" else name
