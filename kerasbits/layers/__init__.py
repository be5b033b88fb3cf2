"""Keras layers whose kernels and inputs are quantized."""

from kerasbits.layers import keras2
from kerasbits.layers.composite import CompositeLayer
from kerasbits.layers.convolutions import (
    QuantConv1D,
    QuantConv1DTranspose,
    QuantConv2D,
    QuantConv2DTranspose,
    QuantDepthwiseConv1D,
    QuantDepthwiseConv2D,
)
from kerasbits.layers.dense import QuantDense
from kerasbits.layers.einsum import QuantEinsumDense
from kerasbits.layers.embedding import QuantEmbedding
from kerasbits.layers.quantized_layer import QuantizedLayer
from kerasbits.layers.quantizer_layer import QuantizerLayer
from kerasbits.layers.separable import QuantSeparableConv1D, QuantSeparableConv2D

__all__ = [
    "CompositeLayer",
    "QuantConv1D",
    "QuantConv1DTranspose",
    "QuantConv2D",
    "QuantConv2DTranspose",
    "QuantDense",
    "QuantDepthwiseConv1D",
    "QuantDepthwiseConv2D",
    "QuantEinsumDense",
    "QuantEmbedding",
    "QuantSeparableConv1D",
    "QuantSeparableConv2D",
    "QuantizedLayer",
    "QuantizerLayer",
    "keras2",
]
