"""What quantized Keras layers share.

Each layer has the Keras signature plus `kernel_quantizer` and `input_quantizer`. A layer with one
kernel is a `QuantizedOp` and its operation in a few lines; a layer of several steps has quantized
sub-layers.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from kerasbits import quantizers, sites
from kerasbits.geometry import Geometry
from kerasbits.host import checked_rate
from kerasbits.layers.quantizer_layer import QuantizerLayer
from kerasbits.packed import FLOAT_BITS, FloatGrid, Floats, InputGrid, PackedTensor
from kerasbits.quantizers.base import Site


class QuantizedLayer:
    """Mixin: the two quantizers of a layer, and the plain layer that it is without them.

    Args:
        kernel_quantizer, input_quantizer: a `Quantizer`, the name of one, or None.
        quantizer_rate: learning-rate multiplier of all their trained variables, a power of two.
    """

    quantizes_inputs = True

    def __init__(
        self, *args, kernel_quantizer=None, input_quantizer=None, quantizer_rate=1.0, **kwargs
    ):
        super().__init__(*args, **kwargs)
        self.kernel_quantizer = self._quantizer(kernel_quantizer, "kernel")
        self.input_quantizer = self._quantizer(input_quantizer, "input")
        self.quantizer_rate = checked_rate(quantizer_rate, f"layer '{self.name}'")

    def _quantizer(self, identifier, role: str) -> quantizers.Quantizer | None:
        try:
            return quantizers.get(identifier, role)
        except ValueError as error:
            raise ValueError(f"layer '{self.name}', {role}_quantizer: {error}") from None

    def __call__(self, *args, **kwargs):
        """The layer's output.

        Raises:
            ValueError: a symbolic tensor of tf_keras, which would lose the layer's weights.
        """
        for given in args:
            if type(given).__module__.partition(".")[0] == "tf_keras":
                raise ValueError(
                    f"layer '{self.name}': expected a tensor of Keras 3, got one of tf_keras "
                    "(Keras 2); kerasbits.tfmot is for tf_keras models"
                )
        return super().__call__(*args, **kwargs)

    @classmethod
    def accepts(cls, plain: keras.layers.Layer) -> bool:
        """Whether the plain layer `plain` has this quantized form.

        Layers with LoRA weights, or that Keras itself has quantized, have no kernel to start from.
        """
        lora = getattr(plain, "lora_rank", None) or getattr(plain, "lora_enabled", False)
        return not lora and getattr(plain, "quantization_mode", None) is None

    def get_config(self):
        """The Keras configuration, the two quantizers and their rate."""
        return {
            **super().get_config(),
            "kernel_quantizer": keras.saving.serialize_keras_object(self.kernel_quantizer),
            "input_quantizer": keras.saving.serialize_keras_object(self.input_quantizer),
            "quantizer_rate": self.quantizer_rate,
        }

    def plain_layer(self) -> keras.layers.Layer:
        """A new float layer of the same configuration, without quantizers."""
        config = self.get_config()
        for own in ("kernel_quantizer", "input_quantizer", "quantizer_rate"):
            del config[own]
        plain = next(c for c in type(self).__mro__ if not issubclass(c, QuantizedLayer))
        return plain.from_config(config)

    def copy_from(self, plain: keras.layers.Layer) -> None:
        """Take the weights of a built plain layer, and start the quantizers from them."""
        raise NotImplementedError

    def reset_quantizers(self) -> None:
        """Start the quantizers anew from the current kernel (after it was replaced)."""
        raise NotImplementedError


class QuantizedOp(QuantizedLayer):
    """Mixin: quantize the input, quantize the kernel, apply the operation.

    Formula: `y = activation(op(Q_input(x), Q_kernel(w)) + bias)`. A quantizer of None leaves
    its tensor as it is; with both None the layer equals the plain Keras layer.

    The quantizer may see the kernel in another shape than Keras, `_seen_shape`, so that one axis
    holds all output channels.
    """

    channel_axis = -1  # of the kernel as the quantizer sees it
    prunable = True  # whether output channels may be dropped
    owner = ""  # name of the layer that this one is a part of

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # In sub-layers, because plain Keras layers save only their own list of variables.
        self.kernel_host = self._host(self.kernel_quantizer, "kernel_quantizer")
        self.input_host = self._host(self.input_quantizer, "input_quantizer")

    def _host(self, quantizer, name: str) -> QuantizerLayer | None:
        if quantizer is None:
            return None
        return QuantizerLayer(quantizer, self.quantizer_rate, name=name, trainable=self.trainable)

    def build(self, input_shape):
        """Create the weights of the plain layer, then the variables of the quantizers."""
        if self.built:
            return
        super().build(input_shape)
        sites = self.sites(input_shape, self.kernel.shape)
        for role, host in self.hosts.items():
            host.build_at(sites[role], self.kernel if role == "kernel" else None)
        if self.kernel_host is not None and self.kernel_quantizer.owns_weight:
            self.kernel.trainable = False

    def sites(self, input_shape, kernel_shape) -> dict[str, Site]:
        """Where the quantizers of this layer work, by role; the layer need not be built.

        Args:
            input_shape: with the batch axis.
            kernel_shape: of the kernel in Keras.
        """
        macs = self._macs(input_shape, kernel_shape)
        return {
            "kernel": Site(
                self.label, "kernel", self._seen_shape(kernel_shape), self.channel_axis, macs,
                prunable=self.prunable,
            ),
            "input": Site(self.label, "input", tuple(input_shape[1:]), None, macs),
        }  # fmt: skip

    @property
    def label(self) -> str:
        """The name for messages: `owner/name` for a part of another layer."""
        return f"{self.owner}/{self.name}" if self.owner else self.name

    def add_weight(self, *args, **kwargs):
        """As in Keras, but weights are read in their own dtype, and cast to the policy's later.

        Under mixed precision the quantizer must see the float32 kernel that `packed_kernel` and
        exporters see, not a rounded copy, or their codes would differ.
        """
        return super().add_weight(*args, **{**kwargs, "autocast": False})

    @property
    def trainable(self) -> bool:
        """Whether the layer is trained. A kernel that its quantizer replaces never is."""
        return super().trainable

    @trainable.setter
    def trainable(self, value):
        keras.layers.Layer.trainable.fset(self, value)
        if self.built and self.kernel_host is not None and self.kernel_quantizer.owns_weight:
            self.kernel.trainable = False

    def call(self, inputs, training=None):
        """The layer's output."""
        training = bool(training)
        if self.input_host is not None:
            inputs = self.input_host(inputs, training=training)
        kernel = self.kernel
        if self.kernel_host is not None:
            seen = _shaped(ops.copy(kernel), self._seen_shape(kernel.shape))
            kernel = _shaped(self.kernel_host(seen, training=training), kernel.shape)
        outputs = self._op(inputs, ops.cast(kernel, self.compute_dtype))
        if self.bias is not None:
            outputs = ops.add(outputs, ops.cast(self._shaped_bias(), outputs.dtype))
        return outputs if self.activation is None else self.activation(outputs)

    # What a layer defines.

    def _op(self, x, kernel):
        """The operation on an input and a kernel in Keras shape."""
        raise NotImplementedError

    def _macs(self, input_shape, kernel_shape) -> int:
        """Multiply-accumulates of a sample."""
        raise NotImplementedError

    def geometry(self) -> Geometry:
        """How `exported_kernel` is applied.

        Raises:
            ValueError: a layer that only runs in Keras (`channels_first`).
        """
        raise NotImplementedError

    # What a layer defines where it differs from the plain case.

    def _seen_shape(self, kernel_shape) -> tuple[int, ...]:
        """Shape of the kernel for the quantizer: the same elements in the same order."""
        return tuple(kernel_shape)

    def _exported_order(self, kernel: np.ndarray) -> np.ndarray:
        """The elements of a kernel, as the quantizer sees it, in the order of `geometry().op`."""
        return kernel

    def _shaped_bias(self):
        """The bias, to be added to the output."""
        return self.bias

    # What every layer inherits.

    @property
    def hosts(self) -> dict[str, QuantizerLayer]:
        """The quantizer hosts by role, "kernel" and "input", as far as present."""
        found = {"kernel": self.kernel_host, "input": self.input_host}
        return {role: host for role, host in found.items() if host is not None}

    def packed_kernel(self) -> PackedTensor | None:
        """Codes, bits and grid of the kernel as inference uses them; None without a quantizer.

        In Keras shape; `[..., channels * multiplier]` of a depthwise kernel.
        """
        if self.kernel_host is None:
            return None
        host = self.kernel_host
        return host.quantizer.encode(self._seen_kernel(), sites.finite_state(host), host.site)

    def _seen_kernel(self) -> np.ndarray:
        kernel = np.asarray(ops.convert_to_numpy(self.kernel), np.float32)
        return kernel.reshape(self._seen_shape(kernel.shape))

    def quantized_kernel(self) -> np.ndarray:
        """The kernel that inference uses, float32, in Keras shape."""
        packed = self.packed_kernel()
        if packed is None:
            return ops.convert_to_numpy(self.kernel)
        return packed.decode().reshape(self.kernel.shape)

    def integer_kernel(self) -> np.ndarray | None:
        """Unsigned codes of the kernel, `uint16`, in Keras shape; None without a kernel quantizer.

        Empty if the quantized values are floats (above 16 bits).
        """
        packed = self.packed_kernel()
        if packed is None or isinstance(packed.encoding, Floats):
            return None if packed is None else packed.codes
        return packed.codes.reshape(self.kernel.shape)

    def input_grid(self) -> InputGrid:
        """The grid that inference rounds the input to."""
        if self.input_host is None:
            return FloatGrid()
        host = self.input_host
        return host.quantizer.grid(sites.finite_state(host), host.site)

    def exported_kernel(self) -> PackedTensor:
        """The kernel in the order that `geometry` describes; floats if it is not quantized.

        Its channel axis is the last one; of an embedding the first.
        """
        packed = self.packed_kernel()
        if packed is None:
            kernel = self._seen_kernel()
            bits = np.full(kernel.shape[self.channel_axis], FLOAT_BITS)
            codes = np.zeros(0, np.uint16)
            packed = PackedTensor(self.label, codes, bits, self.channel_axis, Floats(kernel))
        axis = 0 if self.channel_axis == 0 else -1
        return packed.rearranged(self._exported_order, axis)

    def exported_bias(self) -> np.ndarray | None:
        """The bias, one value for each output channel, float32."""
        if self.bias is None:
            return None
        return np.asarray(ops.convert_to_numpy(self.bias), np.float32).reshape(-1)

    def copy_from(self, plain: keras.layers.Layer) -> None:
        """Take the weights of a built plain layer, and start the quantizers from them."""
        weights = {w.name: w for w in plain.weights}
        for weight in (self.kernel, self.bias):
            if weight is not None:
                weight.assign(weights[weight.name])
        self.reset_quantizers()

    def reset_quantizers(self) -> None:
        """Start the quantizers anew from the current kernel (after it was replaced)."""
        for host in self.hosts.values():
            host.reset(self.kernel)


def _shaped(x, shape):
    return x if tuple(x.shape) == tuple(shape) else ops.reshape(x, shape)


def product(shape) -> int:
    """Number of elements; unknown axes count as 1."""
    return int(np.prod([1 if n is None else n for n in shape], dtype=np.int64))
