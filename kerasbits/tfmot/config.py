"""The tfmot `QuantizeConfig` of a layer that kerasbits quantizes."""

from __future__ import annotations

import keras
import tensorflow_model_optimization as tfmot
import tf_keras

from kerasbits import quantizers
from kerasbits.host import checked_rate
from kerasbits.quantizers import Quantizer
from kerasbits.rules import Rule, resolved
from kerasbits.tfmot.forms import required_form
from kerasbits.tfmot.quantizer import KerasbitsQuantizer

NAME = "KerasbitsQuantizeConfig"


@tf_keras.utils.register_keras_serializable(package="kerasbits")
class KerasbitsQuantizeConfig(tfmot.quantization.keras.QuantizeConfig):
    """How to quantize a layer: all its kernels by one method, and the inputs of the same steps.

    Args:
        kernel: a `Quantizer`, the name of one, its serialized form, or None for float kernels.
        inputs: the same for the inputs.
        rate: learning-rate multiplier of all variables of the quantizers, beside what each method
            has chosen for them; a power of two.

    Raises:
        ValueError: no quantizer at all, one for another role, an unknown name, a wrong rate.

    Example:
        layer = tfmot.quantization.keras.quantize_annotate_layer(
            tf_keras.layers.Dense(10), KerasbitsQuantizeConfig("bitpruning", "uniform"))
    """

    def __init__(
        self,
        kernel: Quantizer | str | dict | None = None,
        inputs: Quantizer | str | dict | None = None,
        rate: float = 1.0,
    ):
        rule = resolved(Rule(kernel, inputs), NAME)
        if rule == Rule():
            names = ", ".join(quantizers.NAMES)
            raise ValueError(f"{NAME}: expected a quantizer ({names}) for kernel or inputs")
        self.kernel, self.inputs = rule.kernel, rule.inputs
        self.rate = checked_rate(rate, NAME)

    def get_weights_and_quantizers(self, layer) -> list:
        """Each kernel of the layer with a new host of its own."""
        if self.kernel is None:
            return []
        kernels = [getattr(layer, name) for name in required_form(layer).kernels]
        return [(w, KerasbitsQuantizer(self.kernel, w, self.rate)) for w in kernels]

    def get_input_quantizers(self, layer) -> list[KerasbitsQuantizer]:
        """A new host for the input of each step of the layer. tfmot has no place for them."""
        form = required_form(layer)
        if self.inputs is None or not form.quantized.quantizes_inputs:
            return []
        return [KerasbitsQuantizer(self.inputs, rate=self.rate) for _ in form.kernels]

    def get_activations_and_quantizers(self, layer) -> list:
        """None: inputs are quantized, not activations behind a layer."""
        return []

    def set_quantize_weights(self, layer, quantize_weights) -> None:
        """Put tensors, or the variables again, in the place of the kernels.

        Not by attribute: tf_keras would forget the variable that a tensor replaces.
        """
        names = required_form(layer).kernels
        vars(layer).update(zip(names, quantize_weights, strict=True))

    def set_quantize_activations(self, layer, quantize_activations) -> None:
        """Nothing, as there are none."""

    def get_output_quantizers(self, layer) -> list:
        """None."""
        return []

    def get_config(self) -> dict:
        """The quantizers, serialized by Keras 3, and the rate."""
        return {
            "kernel": keras.saving.serialize_keras_object(self.kernel),
            "inputs": keras.saving.serialize_keras_object(self.inputs),
            "rate": self.rate,
        }
