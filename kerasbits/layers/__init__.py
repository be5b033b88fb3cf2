"""Keras layers whose kernels and inputs are quantized."""

from kerasbits.layers.quant_layers import QuantConv2D, QuantDense
from kerasbits.layers.quantizer_layer import QuantizerLayer

__all__ = ["QuantConv2D", "QuantDense", "QuantizerLayer"]
