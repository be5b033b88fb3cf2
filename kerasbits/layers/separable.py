"""Quantized separable convolutions: a depthwise one, then a pointwise one."""

from __future__ import annotations

import keras
import numpy as np

from kerasbits.layers.composite import CompositeLayer
from kerasbits.layers.convolutions import (
    QuantConv1D,
    QuantConv2D,
    QuantDepthwiseConv1D,
    QuantDepthwiseConv2D,
)
from kerasbits.layers.quantized_layer import QuantizedOp
from kerasbits.packed import PackedTensor


class _SeparableConvolution(CompositeLayer):
    """`pointwise(depthwise(x))`; both kernels and both inputs are quantized.

    The activation and the bias belong to the pointwise part.
    """

    depthwise_class: type[QuantizedOp]
    pointwise_class: type[QuantizedOp]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.depthwise = self._part(
            self.depthwise_class,
            "depthwise",
            kernel_size=self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            depth_multiplier=self.depth_multiplier,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
            use_bias=False,
            depthwise_initializer=self.depthwise_initializer,
            depthwise_regularizer=self.depthwise_regularizer,
            depthwise_constraint=self.depthwise_constraint,
        )
        self.pointwise = self._part(
            self.pointwise_class,
            "pointwise",
            filters=self.filters,
            kernel_size=1,
            data_format=self.data_format,
            activation=self.activation,
            use_bias=self.use_bias,
            kernel_initializer=self.pointwise_initializer,
            bias_initializer=self.bias_initializer,
            kernel_regularizer=self.pointwise_regularizer,
            bias_regularizer=self.bias_regularizer,
            kernel_constraint=self.pointwise_constraint,
            bias_constraint=self.bias_constraint,
        )

    def build(self, input_shape):
        """Build both parts."""
        if self.built:
            return
        self.sample_shape = tuple(input_shape[1:])
        self.depthwise.build(input_shape)
        self.pointwise.build(self.depthwise.compute_output_shape(input_shape))
        self.input_spec = self.depthwise.input_spec
        self.built = True

    def call(self, inputs, training=None):
        """The layer's output."""
        return self.pointwise(self.depthwise(inputs, training=training), training=training)

    def as_functional(self) -> keras.Model:
        """A model of the two parts."""
        inputs = self._functional_input()
        return keras.Model(inputs, self.pointwise(self.depthwise(inputs)), name=self.name)

    def parts(self) -> tuple[QuantizedOp, ...]:
        """Depthwise and pointwise."""
        return self.depthwise, self.pointwise

    @property
    def depthwise_kernel(self) -> keras.Variable:
        """As in Keras, `[*window, in, multiplier]`."""
        return self.depthwise.kernel

    @property
    def pointwise_kernel(self) -> keras.Variable:
        """As in Keras, `[1, 1, in * multiplier, out]`, or of rank 3."""
        return self.pointwise.kernel

    @property
    def bias(self) -> keras.Variable | None:
        """As in Keras, `(out,)`."""
        return self.pointwise.bias

    def quantized_kernel(self) -> tuple[np.ndarray, np.ndarray]:
        """The kernels that inference uses, depthwise and pointwise, float32."""
        return self.depthwise.quantized_kernel(), self.pointwise.quantized_kernel()

    def integer_kernel(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Unsigned codes of both kernels in Keras shape; None without a kernel quantizer."""
        return self.depthwise.integer_kernel(), self.pointwise.integer_kernel()

    def packed_kernel(self) -> tuple[PackedTensor | None, PackedTensor | None]:
        """Codes, bits and grids of both kernels; None without a kernel quantizer."""
        return self.depthwise.packed_kernel(), self.pointwise.packed_kernel()

    def copy_from(self, plain: keras.layers.Layer) -> None:
        """Take the weights of a built plain layer, and start the quantizers from them."""
        self.depthwise_kernel.assign(plain.depthwise_kernel)
        self.pointwise_kernel.assign(plain.pointwise_kernel)
        if self.bias is not None:
            self.bias.assign(plain.bias)
        self.reset_quantizers()


@keras.saving.register_keras_serializable(package="kerasbits")
class QuantSeparableConv1D(_SeparableConvolution, keras.layers.SeparableConv1D):
    """`keras.layers.SeparableConv1D` with quantized kernels and inputs, see the 2D form."""

    depthwise_class = QuantDepthwiseConv1D
    pointwise_class = QuantConv1D


@keras.saving.register_keras_serializable(package="kerasbits")
class QuantSeparableConv2D(_SeparableConvolution, keras.layers.SeparableConv2D):
    """`keras.layers.SeparableConv2D` with quantized kernels and inputs.

    `kernel_quantizer` works on both kernels and `input_quantizer` on the inputs of both steps,
    each with a state of its own.

    Example:
        QuantSeparableConv2D(32, 3, kernel_quantizer="apot", input_quantizer="uniform")
    """

    depthwise_class = QuantDepthwiseConv2D
    pointwise_class = QuantConv2D
