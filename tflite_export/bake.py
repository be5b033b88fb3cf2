"""A plain float copy of a model whose quantized kernels are markers, for the TFLite converter.

The converter sees ordinary layers. Each quantized kernel is replaced by random numbers that
occur nowhere else, so that its constant can be found in the converted file without doubt, even
where real kernels are all zero or equal. The marked operators are then replaced; what the
markers would compute never matters.

A converter that sees constants multiplies them out: a scaling before or after a layer would go
into its kernel, a padding into its geometry. So a nonlinear operation that the model does not
have, a barrier, stands before and behind each marked layer. They are taken out afterwards, and
what may become part of an operator is put there then (see `fusing` and `folding`).

What matters of a marked layer is that it becomes one operator with an output of the right shape.
So groups are left out, and dilated kernels are dense ones of the same reach, because the converter
takes such layers apart.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable

import keras
import numpy as np

from tflite_export.collect import PackedModel
from tflite_export.graph import Call


def bake(
    model: keras.Model,
    packed: PackedModel,
    barrier: str,
    batch: int | None = None,
) -> tuple[keras.Model, dict[str, np.ndarray], int]:
    """The plain model, the marker of each quantized layer by path, and the number of barriers.

    Batch norms that were folded are left out. Layers that stay float share their weights' values
    with the given model, which is not changed. The inputs get `batch` unless the model fixes it.
    `barrier` names a nonlinear operation of `keras.ops`.
    """
    plain: dict[str, keras.layers.Layer] = {}
    markers: dict[str, np.ndarray] = {}
    fences = _Fences(barrier)

    def make(call):
        if call.path not in plain:
            plain[call.path] = _plain(call, f"layer{len(plain)}")
        return plain[call.path]

    def run(call: Call, args, kwargs):
        if call.path in packed.folded:
            outputs = args[0]
        elif call.path in packed.layers:
            layer = make(call)
            lookup = packed.layers[call.path].packed.op == "embedding"  # ids are whole numbers
            inputs = args[0] if lookup else fences.behind(args[0])
            outputs = fences.behind(layer(inputs, *args[1:], **kwargs))
            if call.path not in markers:
                markers[call.path] = _mark(layer, len(markers))
            outputs = fences.activated(outputs, call.layer.activation)
        elif isinstance(call.layer, keras.layers.Layer):
            layer = make(call)
            outputs = call.run(layer, args, kwargs)
            layer.set_weights(call.layer.get_weights())
        else:
            outputs = call.layer(*args, **kwargs)
        return outputs

    given = keras.tree.flatten(model.inputs)
    batch = next((t.shape[0] for t in given if t.shape[0] is not None), batch)
    inputs = [
        keras.Input(batch_shape=(batch, *t.shape[1:]), dtype=t.dtype, name=_safe_name(t.name, i))
        for i, t in enumerate(given)
    ]
    outputs = packed.graph.replay(inputs, run)
    return keras.Model(inputs, outputs, name="kerasbits"), markers, len(fences.by_tensor)


class _Fences:
    """Barriers, at most one behind each tensor. Layers, unlike operations, pass masks on."""

    def __init__(self, operation: str):
        self.operation = operation
        self.by_tensor: dict[int, tuple] = {}  # with the tensor, so that its id stays its own
        self.activations = 0

    def behind(self, tensor):
        """The tensor behind a barrier."""
        if any(tensor is fenced for _, fenced in self.by_tensor.values()):
            return tensor
        if id(tensor) not in self.by_tensor:
            name = f"barrier{len(self.by_tensor)}"
            fence = _Barrier(self.operation, name=name, dtype="float32")
            self.by_tensor[id(tensor)] = (tensor, fence(tensor))
        return self.by_tensor[id(tensor)][1]

    def activated(self, tensor, activation: Callable | None):
        """The tensor behind the activation of a layer."""
        if activation in (None, keras.activations.linear):
            return tensor
        self.activations += 1
        name = f"activation{self.activations}"
        return keras.layers.Activation(activation, name=name, dtype="float32")(tensor)


def _plain(call: Call, name: str) -> keras.layers.Layer:
    """A new layer. Its name is ours, because a leading underscore breaks the converter."""
    if not getattr(call.layer, "hosts", None):
        return call.layer.__class__.from_config({**call.layer.get_config(), "name": name})
    source = call.layer.plain_layer()
    config = {**source.get_config(), "name": name}
    # The activation comes behind the barrier. The bias is ours; others might be moved elsewhere.
    changes = {"use_bias": False, "activation": "linear", "groups": 1}
    if "dilation_rate" in config:
        sizes = zip(config["kernel_size"], config["dilation_rate"], strict=True)
        changes["kernel_size"] = tuple((size - 1) * rate + 1 for size, rate in sizes)
        changes["dilation_rate"] = tuple(1 for _ in config["kernel_size"])
    if config.get("padding") == "causal":
        changes["padding"] = "same"  # as many outputs
    config.update({key: value for key, value in changes.items() if key in config})
    return _AS_ONE_OPERATOR.get(type(source), type(source)).from_config(config)


@keras.saving.register_keras_serializable(package="tflite_export")
class _Barrier(keras.layers.Layer):
    """An operation of `keras.ops`, by its name."""

    def __init__(self, operation: str, **kwargs):
        super().__init__(**kwargs)
        self.operation = operation
        self.supports_masking = True

    def call(self, inputs):
        """The operation on each element."""
        return getattr(keras.ops, self.operation)(inputs)

    def get_config(self):
        """The name of the operation."""
        return {**super().get_config(), "operation": self.operation}


# On other backends the layers below are never run, and only their shapes matter: the converter
# sees them on TensorFlow (see `converter`).


@keras.saving.register_keras_serializable(package="tflite_export")
class _Product(keras.layers.Dense):
    """A dense layer whose products of any rank become one operator."""

    def call(self, inputs, training=None):
        """The product with the kernel over the last axis; there is neither bias nor activation."""
        if len(inputs.shape) == 2 or keras.backend.backend() != "tensorflow":
            return super().call(inputs)
        import tensorflow as tf

        inputs = keras.ops.cast(inputs, self.kernel.dtype)
        return tf.raw_ops.BatchMatMulV2(x=inputs, y=keras.ops.convert_to_tensor(self.kernel))


@keras.saving.register_keras_serializable(package="tflite_export")
class _Lookup(keras.layers.Embedding):
    """An embedding without the operators that let negative ids count from the end."""

    def call(self, inputs):
        """The rows of the table whose numbers are the inputs."""
        if keras.backend.backend() != "tensorflow":
            return super().call(inputs)
        import tensorflow as tf

        return tf.gather(keras.ops.convert_to_tensor(self.embeddings), tf.cast(inputs, tf.int32))


_AS_ONE_OPERATOR = {keras.layers.Dense: _Product, keras.layers.Embedding: _Lookup}
"""Layers that the converter makes several operators of, and what it makes one of."""


def _mark(layer: keras.layers.Layer, index: int) -> np.ndarray:
    """Fill the kernel with random numbers, and return them in the order that files have.

    The same index gives the same numbers.
    """
    random = np.random.default_rng([0x6B62, index])
    kernel = layer.embeddings if isinstance(layer, keras.layers.Embedding) else layer.kernel
    marker = random.standard_normal(kernel.shape).astype(np.float32)
    kernel.assign(marker)
    if isinstance(layer, _UNMOVED):
        return marker
    transposed = isinstance(layer, keras.layers.Conv1DTranspose | keras.layers.Conv2DTranspose)
    return np.ascontiguousarray(np.moveaxis(marker, -2 if transposed else -1, 0))


_UNMOVED = (
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.Embedding,
)
"""Layers whose kernels have the same order in Keras and in files. Others have their output
channels first in files: `[out, kh, kw, in]`, `[out, in]`."""


def _safe_name(name: str, index: int) -> str:
    """A name that the converter accepts: it fails on Python keywords and leading underscores."""
    name = name.lstrip("_")
    return f"input{index}" if not name or keyword.iskeyword(name) or name == "self" else name
