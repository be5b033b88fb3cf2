"""The quantized embedding."""

from __future__ import annotations

import keras
from keras import ops

from kerasbits.geometry import Geometry
from kerasbits.layers.quantized_layer import QuantizedOp


@keras.saving.register_keras_serializable(package="kerasbits")
class QuantEmbedding(QuantizedOp, keras.layers.Embedding):
    """`keras.layers.Embedding` with a quantized table; per-channel quantizers work on its rows.

    It multiplies nothing, so costs that count multiplications give its bits no weight. Take those
    that count bits: `BayesianBits(cost="const")`, `BitPruning(cost="footprint")`.

    Raises:
        ValueError: an input quantizer, as the inputs are ids.

    Example:
        QuantEmbedding(1000, 16, kernel_quantizer="bitpruning")
    """

    channel_axis = 0
    prunable = False
    quantizes_inputs = False
    bias = None
    activation = None

    def __init__(
        self,
        input_dim,
        output_dim,
        embeddings_initializer="uniform",
        embeddings_regularizer=None,
        embeddings_constraint=None,
        mask_zero=False,
        weights=None,
        **kwargs,
    ):
        super().__init__(
            input_dim,
            output_dim,
            embeddings_initializer,
            embeddings_regularizer,
            embeddings_constraint,
            mask_zero,
            **kwargs,
        )
        if self.input_quantizer is not None:
            raise ValueError(
                f"layer '{self.name}': expected no input_quantizer, as ids are whole numbers "
                f"already, got {self.input_quantizer!r}"
            )
        if weights is not None:  # not passed on: the layer must be complete before it is built
            self.build()
            self.embeddings.assign(weights[0] if isinstance(weights, list) else weights)
            self.reset_quantizers()

    def build(self, input_shape=None):
        """Create the table and the variables of its quantizer; no shape is needed for them."""
        super().build(() if input_shape is None else input_shape)

    @property
    def kernel(self):
        """The table, `(input_dim, output_dim)`."""
        return self.embeddings

    def _op(self, ids, kernel):
        if keras.backend.standardize_dtype(ids.dtype) not in ("int32", "int64"):
            ids = ops.cast(ids, "int32")
        return ops.take(kernel, ids, axis=0)

    def geometry(self) -> Geometry:
        """Rows looked up by their number."""
        return Geometry("embedding")

    def _macs(self, input_shape, kernel_shape) -> int:
        return 0
