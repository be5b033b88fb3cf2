"""Keras layers with quantized kernels and inputs.

Each has the Keras signature plus `kernel_quantizer` and `input_quantizer`. A layer is its
operation in one or two lines; everything else is in the mixin.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from kerasbits import quantizers, sites
from kerasbits.geometry import Geometry
from kerasbits.layers.quantizer_layer import QuantizerLayer
from kerasbits.packed import FLOAT_BITS, FloatGrid, Floats, InputGrid, PackedTensor
from kerasbits.quantizers.base import Site


class QuantizedOp:
    """Mixin: quantize the input, quantize the kernel, apply the operation.

    Formula: `y = activation(op(Q_input(x), Q_kernel(w)) + bias)`. A quantizer of None leaves
    its tensor as it is; with both None the layer equals the plain Keras layer.

    Args:
        kernel_quantizer, input_quantizer: a `Quantizer`, the name of one, or None.
    """

    def __init__(self, *args, kernel_quantizer=None, input_quantizer=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.kernel_quantizer = quantizers.get(kernel_quantizer)
        self.input_quantizer = quantizers.get(input_quantizer)
        # In sub-layers, because plain Keras layers save only their own list of variables.
        self.kernel_host = _host(self.kernel_quantizer, "kernel_quantizer")
        self.input_host = _host(self.input_quantizer, "input_quantizer")

    def build(self, input_shape):
        """Create the weights of the plain layer, then the variables of the quantizers."""
        if self.built:
            return
        super().build(input_shape)
        macs = self._macs(input_shape)
        if self.kernel_host is not None:
            site = Site(self.name, "kernel", tuple(self.kernel.shape), -1, macs)
            self.kernel_host.build_at(site, self.kernel)
            if self.kernel_quantizer.owns_weight:
                self.kernel.trainable = False
        if self.input_host is not None:
            self.input_host.build_at(Site(self.name, "input", tuple(input_shape[1:]), None, macs))

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
            kernel = self.kernel_host(kernel * 1.0, training=training)
        outputs = self._op(inputs, ops.cast(kernel, self.compute_dtype))
        if self.bias is not None:
            outputs = ops.add(outputs, ops.cast(self._shaped_bias(), outputs.dtype))
        return outputs if self.activation is None else self.activation(outputs)

    def _shaped_bias(self):
        return self.bias

    def get_config(self):
        """The Keras configuration and the two quantizers."""
        return {
            **super().get_config(),
            "kernel_quantizer": keras.saving.serialize_keras_object(self.kernel_quantizer),
            "input_quantizer": keras.saving.serialize_keras_object(self.input_quantizer),
        }

    @property
    def hosts(self) -> dict[str, QuantizerLayer]:
        """The quantizer hosts by role, "kernel" and "input", as far as present."""
        found = {"kernel": self.kernel_host, "input": self.input_host}
        return {role: host for role, host in found.items() if host is not None}

    def packed_kernel(self) -> PackedTensor | None:
        """Codes, bits and grid of the kernel as inference uses them; None without a quantizer."""
        if self.kernel_host is None:
            return None
        host = self.kernel_host
        kernel = np.asarray(ops.convert_to_numpy(self.kernel), np.float32)
        return host.quantizer.encode(kernel, sites.finite_state(host), host.site)

    def quantized_kernel(self) -> np.ndarray:
        """The kernel that inference uses, float32."""
        packed = self.packed_kernel()
        return ops.convert_to_numpy(self.kernel) if packed is None else packed.decode()

    def integer_kernel(self) -> np.ndarray | None:
        """Unsigned codes of the kernel, `uint16`; None without a kernel quantizer."""
        packed = self.packed_kernel()
        return None if packed is None else packed.codes

    def input_grid(self) -> InputGrid:
        """The grid that inference rounds the input to."""
        if self.input_host is None:
            return FloatGrid()
        host = self.input_host
        return host.quantizer.grid(sites.finite_state(host), host.site)

    def geometry(self) -> Geometry:
        """How `exported_kernel` is applied."""
        raise NotImplementedError

    def exported_kernel(self) -> PackedTensor:
        """The kernel in the order that `geometry` describes; floats if it is not quantized."""
        if self.kernel_host is not None:
            return self.packed_kernel()
        kernel = np.asarray(ops.convert_to_numpy(self.kernel), np.float32)
        bits = np.full(kernel.shape[-1], FLOAT_BITS)
        return PackedTensor(self.name, np.zeros(0, np.uint16), bits, -1, Floats(kernel))

    def exported_bias(self) -> np.ndarray | None:
        """The bias, one value for each output channel, float32."""
        if self.bias is None:
            return None
        return np.asarray(ops.convert_to_numpy(self.bias), np.float32).reshape(-1)

    def plain_layer(self) -> keras.layers.Layer:
        """A new float layer of the same configuration, without quantizers."""
        config = self.get_config()
        del config["kernel_quantizer"], config["input_quantizer"]
        plain = next(c for c in type(self).__mro__ if not issubclass(c, QuantizedOp))
        return plain.from_config(config)

    def reset_quantizers(self) -> None:
        """Start the quantizers anew from the current kernel (after it was replaced)."""
        for host in self.hosts.values():
            host.reset(self.kernel)


@keras.saving.register_keras_serializable(package="kerasbits")
class QuantDense(QuantizedOp, keras.layers.Dense):
    """`keras.layers.Dense` with a quantized kernel and input.

    Example:
        QuantDense(10, kernel_quantizer="bitpruning", input_quantizer="uniform")
    """

    def _op(self, x, kernel):
        return ops.matmul(x, kernel)

    def geometry(self) -> Geometry:
        """A matrix product over the last axis."""
        return Geometry("dense")

    def _macs(self, input_shape) -> int:
        return _product(input_shape[1:]) * self.units


@keras.saving.register_keras_serializable(package="kerasbits")
class QuantConv2D(QuantizedOp, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a quantized kernel and input.

    Example:
        QuantConv2D(32, 3, kernel_quantizer="bsq", input_quantizer="uniform")
    """

    def _op(self, x, kernel):
        return self.convolution_op(x, kernel)

    def geometry(self) -> Geometry:
        """A convolution with this layer's strides, padding, dilation and groups."""
        if self.data_format != "channels_last":
            raise ValueError(f"layer '{self.name}': expected channels_last, got {self.data_format}")
        strides, dilations = tuple(self.strides), tuple(self.dilation_rate)
        return Geometry("conv2d", strides, dilations, self.padding, self.groups)

    def _shaped_bias(self):
        if self.data_format == "channels_first":
            return ops.reshape(self.bias, (1, -1, 1, 1))
        return self.bias

    def _macs(self, input_shape) -> int:
        shape = self.compute_output_shape(input_shape)
        spatial = shape[2:] if self.data_format == "channels_first" else shape[1:-1]
        return _product(spatial) * _product(self.kernel.shape)


def _host(quantizer, name: str) -> QuantizerLayer | None:
    return None if quantizer is None else QuantizerLayer(quantizer, name=name)


def _product(shape) -> int:
    """Number of elements; unknown axes count as 1."""
    return int(np.prod([1 if n is None else n for n in shape], dtype=np.int64))
