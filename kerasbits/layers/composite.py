"""Layers of several steps: quantized sub-layers joined by plain operations."""

from __future__ import annotations

import keras

from kerasbits.layers.quantized_layer import QuantizedLayer, QuantizedOp


class CompositeLayer(QuantizedLayer):
    """Mixin: a layer whose kernels and inputs are those of quantized sub-layers.

    It has no `hosts` of its own; `kerasbits.sites` finds those of its parts, as `sep/depthwise`.
    With both quantizers None it equals the plain Keras layer.
    """

    def parts(self) -> tuple[QuantizedOp, ...]:
        """The quantized sub-layers, in the order of their work."""
        raise NotImplementedError

    def as_functional(self) -> keras.Model:
        """The same layer as a functional model over its own parts, one input and one output.

        Raises:
            ValueError: not built, or unknown axes that no such model can have.
        """
        raise NotImplementedError

    def reset_quantizers(self) -> None:
        """Start the quantizers anew from the current kernels."""
        for part in self.parts():
            part.reset_quantizers()

    def _part(self, kind: type[QuantizedOp], name: str, **kwargs) -> QuantizedOp:
        """A new sub-layer with this layer's quantizers, their rate, and dtype."""
        part = kind(
            **kwargs,
            kernel_quantizer=self.kernel_quantizer,
            input_quantizer=self.input_quantizer,
            quantizer_rate=self.quantizer_rate,
            dtype=self.dtype_policy,
            trainable=self.trainable,
            name=name,
        )
        part.owner = self.name
        return part

    def _functional_input(self) -> keras.KerasTensor:
        if not self.built:
            raise ValueError(f"layer '{self.name}': expected a built layer, got no input shape yet")
        return keras.Input(self.sample_shape, name="inputs")
