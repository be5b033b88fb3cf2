"""A plain float copy of a model whose quantized kernels are markers, for the TFLite converter.

The converter sees ordinary layers. Each quantized kernel is replaced by random numbers that
occur nowhere else, so that its constant can be found in the converted file without doubt, even
where real kernels are all zero or equal. The marked operators are then replaced; what the
markers would compute never matters.
"""

from __future__ import annotations

import keras
import numpy as np

from tflite_export.collect import PackedModel
from tflite_export.graph import Call


def bake(model: keras.Model, packed: PackedModel) -> tuple[keras.Model, dict[str, np.ndarray]]:
    """The plain model, and the marker of each quantized layer by path (Keras order).

    Batch norms that were folded are left out. Layers that stay float share their weights' values
    with the given model, which is not changed.
    """
    plain: dict[str, keras.layers.Layer] = {}
    markers: dict[str, np.ndarray] = {}

    def run(call: Call, args, kwargs):
        if call.path in packed.folded:
            return args[0]
        if not isinstance(call.layer, keras.layers.Layer):
            return call.layer(*args, **kwargs)
        if call.path not in plain:
            plain[call.path] = _plain(call, name=f"layer{len(plain)}")
        layer = plain[call.path]
        outputs = layer(*args, **kwargs)
        if call.path in packed.layers and call.path not in markers:
            markers[call.path] = _mark(layer, len(markers))
        elif call.path not in packed.layers:
            layer.set_weights(call.layer.get_weights())
        return outputs

    inputs = [
        keras.Input(batch_shape=t.shape, dtype=t.dtype, name=_safe_name(t.name, i))
        for i, t in enumerate(keras.tree.flatten(model.inputs))
    ]
    outputs = packed.graph.replay(inputs, run)
    return keras.Model(inputs, outputs, name="kerasbits"), markers


def _plain(call: Call, name: str) -> keras.layers.Layer:
    """A new layer. Its name is ours, because a leading underscore breaks the converter."""
    quantized = getattr(call.layer, "hosts", None)
    source = call.layer.plain_layer() if quantized else call.layer
    config = {**source.get_config(), "name": name}
    if quantized and "dilation_rate" in config:
        # The converter takes dilated convolutions apart. A dense kernel of the same reach gives
        # the same shapes, and its numbers are markers anyway.
        sizes = zip(config["kernel_size"], config["dilation_rate"], strict=True)
        config["kernel_size"] = tuple((size - 1) * rate + 1 for size, rate in sizes)
        config["dilation_rate"] = (1, 1)
    return source.__class__.from_config(config)


def _mark(layer: keras.layers.Layer, index: int) -> np.ndarray:
    """Fill kernel and bias with random numbers; the same index gives the same numbers."""
    random = np.random.default_rng([0x6B62, index])
    marker = random.standard_normal(layer.kernel.shape).astype(np.float32)
    layer.kernel.assign(marker)
    if layer.bias is not None:
        layer.bias.assign(random.standard_normal(layer.bias.shape).astype(np.float32))
    return marker


def _safe_name(name: str, index: int) -> str:
    return name.lstrip("_") or f"input{index}"
