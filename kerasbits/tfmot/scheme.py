"""The scheme by which tfmot's own `quantize_apply` wraps layers as kerasbits needs it."""

from __future__ import annotations

import tensorflow_model_optimization as tfmot
import tf_keras

from kerasbits.quantizers import Quantizer
from kerasbits.tfmot.config import KerasbitsQuantizeConfig
from kerasbits.tfmot.forms import form_of, is_unsupported
from kerasbits.tfmot.wrapper import KerasbitsQuantizeWrapper

Q = tfmot.quantization.keras


class KerasbitsQuantizeScheme(Q.QuantizeScheme):
    """Wrap annotated layers, change nothing else in the model.

    There is no 8-bit layer behind the inputs, as in tfmot's default scheme, and no fusing: batch
    norm is trained as it is and folded at export.

    Args:
        kernel, inputs, rate: as in `KerasbitsQuantizeConfig`; for layers that were annotated
            without a configuration. With neither `kernel` nor `inputs` there may be none.

    Example:
        annotated = tfmot.quantization.keras.quantize_annotate_model(model)
        with tfmot.quantization.keras.quantize_scope():
            q = tfmot.quantization.keras.quantize_apply(
                annotated, scheme=KerasbitsQuantizeScheme(kernel="apot"))
    """

    def __init__(
        self,
        kernel: Quantizer | str | None = None,
        inputs: Quantizer | str | None = None,
        rate: float = 1.0,
    ):
        none = kernel is None and inputs is None
        self.default = None if none else KerasbitsQuantizeConfig(kernel, inputs, rate)

    def get_layout_transformer(self) -> WrapAnnotated:
        """What wraps the layers."""
        return WrapAnnotated(self.default)

    def get_quantize_registry(self) -> NoRegistry:
        """Nothing is left for it to do."""
        return NoRegistry()


class WrapAnnotated(Q.QuantizeLayoutTransform):
    """Put `KerasbitsQuantizeWrapper` around annotated layers; tfmot leaves them as they are.

    Args:
        default: of layers annotated without a configuration; None if there must be none.
    """

    def __init__(self, default: KerasbitsQuantizeConfig | None):
        self.default = default

    def apply(self, model: tf_keras.Model, layer_quantize_map: dict) -> tuple:
        """The model with wrapped layers, and what is left to tfmot: foreign configurations.

        Raises:
            ValueError: a layer that cannot be quantized was given a configuration, or one that can
                was given none.
        """
        left = dict(layer_quantize_map)

        def wrap(layer):
            if layer.name not in layer_quantize_map:
                return layer
            config = layer_quantize_map[layer.name].get("quantize_config")
            if config is not None and not isinstance(config, KerasbitsQuantizeConfig):
                return layer
            del left[layer.name]
            return wrapped(layer, config, self.default)

        return tf_keras.models.clone_model(model, clone_function=wrap), left


def wrapped(layer, config: KerasbitsQuantizeConfig | None, default: KerasbitsQuantizeConfig | None):
    """An annotated layer in its wrapper. Without a configuration only if it can be quantized.

    Raises:
        ValueError: as `WrapAnnotated.apply`.
    """
    if config is None and form_of(layer) is None and not is_unsupported(layer):
        return layer
    if config is None and default is None:
        raise ValueError(
            f"layer '{layer.name}': expected a KerasbitsQuantizeConfig, but it was annotated "
            "without one; give it one, or one for all to KerasbitsQuantizeScheme(kernel, inputs)"
        )
    return KerasbitsQuantizeWrapper(layer, config or default)


class NoRegistry(Q.QuantizeRegistry):
    """Knows no layer."""

    def supports(self, layer) -> bool:
        """No."""
        return False

    def get_quantize_config(self, layer) -> None:
        """None."""
