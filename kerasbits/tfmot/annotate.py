"""Annotate layers, then quantize what is annotated: tfmot's way, with errors that say more."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow_model_optimization as tfmot
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize_annotate

from kerasbits import sites
from kerasbits.quantizers import Quantizer
from kerasbits.rules import Rule
from kerasbits.tfmot.cloning import check_model, cloned, copied
from kerasbits.tfmot.config import KerasbitsQuantizeConfig
from kerasbits.tfmot.forms import required_form
from kerasbits.tfmot.model import configurations
from kerasbits.tfmot.scheme import KerasbitsQuantizeScheme, wrapped
from kerasbits.tfmot.wrapper import check_layer

Annotated = quantize_annotate.QuantizeAnnotate
"""The layer around another by which tfmot marks it. It has no public name there."""

quantize_scope = tfmot.quantization.keras.quantize_scope
"""The scope in which tfmot's own layers are loaded. Those of kerasbits need none."""


def quantize_annotate_layer(
    layer: tf_keras.layers.Layer, quantize_config: KerasbitsQuantizeConfig
) -> tf_keras.layers.Layer:
    """The layer with a mark that says how `quantize_apply` is to quantize it.

    Args:
        layer: of a class in `kerasbits.tfmot.forms`.
        quantize_config: its quantizers.

    Raises:
        ValueError: another layer, one of Keras 3, or another configuration.

    Example:
        quantize_annotate_layer(tf_keras.layers.Dense(10), KerasbitsQuantizeConfig("bsq"))
    """
    check_layer(layer)
    required_form(layer)
    if not isinstance(quantize_config, KerasbitsQuantizeConfig):
        raise ValueError(
            f"layer '{layer.name}': expected a KerasbitsQuantizeConfig, got {quantize_config!r}"
        )
    return Annotated(layer, quantize_config)


def quantize_annotate_model(
    model: tf_keras.Model,
    kernel: Quantizer | str | None = None,
    inputs: Quantizer | str | None = None,
    rules: Mapping[str, Rule | None] | None = None,
    strict: bool = False,
    rate: float = 1.0,
) -> tf_keras.Model:
    """A copy of a model whose layers are annotated; arguments and errors as `quantize_model`.

    Example:
        q = quantize_apply(quantize_annotate_model(model, kernel="apot"))
    """
    configs = configurations(model, kernel, inputs, rules, strict, rate)

    def change(layer):
        config = configs.get(id(layer))
        return None if config is None else Annotated(copied(layer), config)

    return cloned(model, change)


def quantize_apply(
    model: tf_keras.Model, scheme: KerasbitsQuantizeScheme | None = None
) -> tf_keras.Model:
    """A copy of an annotated model whose annotated layers are quantized.

    Unlike tfmot's it goes into nested models, and layers keep their names.

    Args:
        model: annotated, built; with trained weights or not.
        scheme: says what to do with layers that are annotated without a configuration.

    Raises:
        ValueError: another scheme, nothing annotated, a layer annotated with a configuration of
            another kind or with none, a model of Keras 3, subclassed or not built.

    Example:
        layer = quantize_annotate_layer(tf_keras.layers.Dense(10), KerasbitsQuantizeConfig("bsq"))
        q = quantize_apply(tf_keras.Sequential([tf_keras.Input((4,)), layer]))
    """
    scheme = KerasbitsQuantizeScheme() if scheme is None else scheme
    if not isinstance(scheme, KerasbitsQuantizeScheme):
        raise ValueError(f"quantize_apply: expected a KerasbitsQuantizeScheme, got {scheme!r}")
    check_model(model)
    if not any(isinstance(layer, Annotated) for _, layer in sites.walk(model, _is_model)):
        raise ValueError(
            f"model '{model.name}': expected layers that are annotated, got none; use "
            "kerasbits.tfmot.quantize_annotate_layer or quantize_annotate_model"
        )

    def change(layer):
        if not isinstance(layer, Annotated):
            return None
        return wrapped(copied(layer.layer), layer.quantize_config, scheme.default)

    return cloned(model, change)


def _is_model(layer) -> bool:
    return isinstance(layer, tf_keras.Model)
