"""Quantized convolutions over one and two axes: plain, depthwise and transposed.

Exported, all of them are convolutions of two axes; those of one axis have a single row.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from kerasbits.geometry import Geometry, Pair
from kerasbits.layers.quantized_layer import QuantizedOp, product


class _Convolution(QuantizedOp):
    """A convolution, `[*window, in / groups, out]`."""

    def _op(self, x, kernel):
        padding = self.padding
        if padding == "causal":
            around = [(0, 0), (0, 0)]
            around.insert(self._first_axis, (self._reach(0) - 1, 0))
            x, padding = ops.pad(x, around), "valid"
        return ops.conv(x, kernel, padding=padding, **self._arguments())

    def _arguments(self) -> dict:
        return {
            "strides": tuple(self.strides),
            "dilation_rate": self.dilation_rate,
            "data_format": self.data_format,
        }

    @property
    def _first_axis(self) -> int:
        """First axis of the image."""
        return 2 if self.data_format == "channels_first" else 1

    def _spatial(self, shape) -> tuple:
        return tuple(shape[self._first_axis : self._first_axis + self.rank])

    def _reach(self, axis: int) -> int:
        """Input pixels that the window spans."""
        return (self.kernel_size[axis] - 1) * self.dilation_rate[axis] + 1

    def _shaped_bias(self):
        if self.data_format == "channels_first":
            return ops.reshape(self.bias, (1, -1, *[1] * self.rank))
        return self.bias

    def _macs(self, input_shape, kernel_shape) -> int:
        spatial = self._spatial(self.compute_output_shape(input_shape))
        return product(spatial) * product(kernel_shape)

    def geometry(self) -> Geometry:
        """A convolution with this layer's strides, padding, dilation and groups.

        Raises:
            ValueError: `channels_first`.
        """
        self._check_format()
        padding = self.padding
        if padding == "causal":
            padding = ((0, 0), (self._reach(0) - 1, 0))
        return Geometry("conv2d", *self._steps(), padding, self._groups())

    def _check_format(self):
        if self.data_format != "channels_last":
            raise ValueError(
                f"layer '{self.label}': expected channels_last, got {self.data_format}"
            )

    def _steps(self) -> tuple[Pair, Pair]:
        """Strides and dilations of rows and columns."""
        return _rows_and_columns(self.strides), _rows_and_columns(self.dilation_rate)

    def _groups(self) -> int:
        return self.groups

    def _exported_order(self, kernel: np.ndarray) -> np.ndarray:
        return kernel[None] if self.rank == 1 else kernel


class _DepthwiseConvolution(_Convolution):
    """A depthwise convolution, `[*window, in, multiplier]`.

    Quantizers and exporters see one channel for each output, `[*window, in * multiplier]`. None
    of them can be dropped, as an input channel would have to go with it.
    """

    prunable = False

    def _op(self, x, kernel):
        return ops.depthwise_conv(x, kernel, padding=self.padding, **self._arguments())

    def _seen_shape(self, kernel_shape) -> tuple[int, ...]:
        *window, channels, multiplier = kernel_shape
        return (*window, channels * multiplier)

    def geometry(self) -> Geometry:
        """A depthwise convolution; its groups are the input channels.

        Raises:
            ValueError: `channels_first`.
        """
        self._check_format()
        groups = int(self.kernel.shape[-2])
        return Geometry("depthwise_conv2d", *self._steps(), self.padding, groups)


class _TransposedConvolution(_Convolution):
    """A transposed convolution, `[*window, out, in]`."""

    channel_axis = -2

    def _op(self, x, kernel):
        return ops.conv_transpose(
            x,
            kernel,
            padding=self.padding,
            output_padding=self.output_padding,
            **self._arguments(),
        )

    def _macs(self, input_shape, kernel_shape) -> int:
        """Each input pixel meets the whole kernel."""
        return product(self._spatial(input_shape)) * product(kernel_shape)

    def geometry(self) -> Geometry:
        """A convolution of stride 1 over the input with `stride - 1` zeros between its pixels.

        Raises:
            ValueError: `channels_first`.
        """
        self._check_format()
        padding = _rows_and_columns([self._pads(i) for i in range(self.rank)], (0, 0))
        strides, dilations = self._steps()
        return Geometry("conv2d", (1, 1), dilations, padding, input_dilations=strides)

    def _pads(self, axis: int) -> Pair:
        """Zeros before and after an axis of the dilated input.

        Formula: an input of n pixels has `(n - 1) * stride + extent` outputs, `extent` those of
        one pixel. The `reach - extent` outputs that are cut off are cut at both ends, fewer before.
        """
        reach, stride = self._reach(axis), self.strides[axis]
        given = None if self.output_padding is None else self.output_padding[axis]
        if self.padding == "valid":
            extent = max(reach, stride) if given is None else reach + given
        else:
            extent = stride if given is None else reach % 2 + given
        before = reach - 1 - max(reach - extent, 0) // 2
        return before, extent + reach - 2 - before

    def _exported_order(self, kernel: np.ndarray) -> np.ndarray:
        window = tuple(range(self.rank))
        flipped = np.flip(np.swapaxes(kernel, -1, -2), window)
        return super()._exported_order(flipped)


def _rows_and_columns(values, row=1) -> tuple:
    """A value for each axis as a pair; with one axis there is a single row."""
    return (row, *values) if len(values) == 1 else tuple(values)


@keras.saving.register_keras_serializable(package="kerasbits")
class QuantConv1D(_Convolution, keras.layers.Conv1D):
    """`keras.layers.Conv1D` with a quantized kernel and input."""


@keras.saving.register_keras_serializable(package="kerasbits")
class QuantConv2D(_Convolution, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a quantized kernel and input.

    Example:
        QuantConv2D(32, 3, kernel_quantizer="bsq", input_quantizer="uniform")
    """


@keras.saving.register_keras_serializable(package="kerasbits")
class QuantDepthwiseConv1D(_DepthwiseConvolution, keras.layers.DepthwiseConv1D):
    """`keras.layers.DepthwiseConv1D` with a quantized kernel and input."""


@keras.saving.register_keras_serializable(package="kerasbits")
class QuantDepthwiseConv2D(_DepthwiseConvolution, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with a quantized kernel and input.

    Per-channel quantizers have parameters for each of the `in * multiplier` outputs.
    """


@keras.saving.register_keras_serializable(package="kerasbits")
class QuantConv1DTranspose(_TransposedConvolution, keras.layers.Conv1DTranspose):
    """`keras.layers.Conv1DTranspose` with a quantized kernel and input."""


@keras.saving.register_keras_serializable(package="kerasbits")
class QuantConv2DTranspose(_TransposedConvolution, keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` with a quantized kernel and input.

    Example:
        QuantConv2DTranspose(16, 4, strides=2, padding="same", kernel_quantizer="bitpruning")
    """
