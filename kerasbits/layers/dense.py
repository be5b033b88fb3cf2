"""The quantized dense layer."""

from __future__ import annotations

import keras
from keras import ops

from kerasbits.geometry import Geometry
from kerasbits.layers.quantized_layer import QuantizedOp, product


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

    def _macs(self, input_shape, kernel_shape) -> int:
        return product(input_shape[1:]) * self.units
