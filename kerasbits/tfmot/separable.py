"""Separable convolutions of tf_keras in two steps, with a quantizer between them."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from keras import ops


def run(layer, inputs, kernels, between: Callable):
    """The output of a separable convolution.

    Formula: `activation(pointwise(between(depthwise(x))) + bias)`.

    Args:
        layer: a `SeparableConv1D` or `SeparableConv2D` of tf_keras, for its settings.
        inputs: of the compute dtype.
        kernels: depthwise and pointwise, of the compute dtype.
        between: what is done to the input of the second step.
    """
    depthwise, pointwise = kernels
    outputs = ops.depthwise_conv(
        inputs,
        depthwise,
        strides=tuple(layer.strides),
        padding=layer.padding,
        data_format=layer.data_format,
        dilation_rate=tuple(layer.dilation_rate),
    )
    outputs = ops.conv(between(outputs), pointwise, data_format=layer.data_format)
    if layer.use_bias:
        outputs += tf.cast(_shaped_bias(layer), outputs.dtype)
    return outputs if layer.activation is None else layer.activation(outputs)


def _shaped_bias(layer):
    if layer.data_format == "channels_first":
        return tf.reshape(layer.bias, (1, -1, *[1] * layer.rank))
    return layer.bias
