"""Copy a tf_keras model, nested models included, with some of its layers replaced."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tf_keras

from kerasbits import sites
from kerasbits.tfmot.keras3_graph import has_graph
from kerasbits.tfmot.wrapper import KerasbitsQuantizeWrapper


def check_model(model) -> None:
    """Whether a model can be copied with other layers.

    Raises:
        ValueError: no tf_keras model, one that is subclassed or not built, NaN in a weight.
    """
    if isinstance(model, keras.Model):
        raise ValueError(
            f"kerasbits.tfmot: expected a tf_keras model, got the Keras 3 model '{model.name}'; "
            "kerasbits.quantize_model is for those"
        )
    if not isinstance(model, tf_keras.Model):
        raise ValueError(
            f"kerasbits.tfmot: expected a tf_keras model, got {type(model).__module__}."
            f"{type(model).__name__}"
        )
    if not is_cloneable(model):
        kind = type(model).__name__
        remedy = "use kerasbits.tfmot.KerasbitsQuantizeWrapper inside it"
        if has_graph(model):  # with a training step of its own, for one
            remedy = f"quantize the functional model, then make {kind}(q.inputs, q.outputs) of it"
        raise ValueError(
            f"model '{model.name}': expected a Sequential or functional model, got the subclass "
            f"{kind}, which may do more than its graph; {remedy}"
        )
    if not model.built:
        raise ValueError(
            f"model '{model.name}': expected a built model, got one without weights; "
            "give it an Input layer or call it once"
        )
    for path, layer in sites.walk(model):
        for weight in layer.weights:
            if weight.dtype.is_floating and not np.isfinite(weight.numpy()).all():
                raise ValueError(
                    f"layer '{path}': expected finite weights, got NaN or inf in '{weight.name}'"
                )


def is_cloneable(layer) -> bool:
    """Whether tf_keras clones this model layer by layer."""
    return isinstance(layer, tf_keras.Sequential) or (
        isinstance(layer, tf_keras.Model) and type(layer).__name__ == "Functional"
    )


def cloned(model: tf_keras.Model, change: Callable) -> tf_keras.Model:
    """A copy of a model with the same weights.

    Args:
        model: as `check_model` wants it.
        change: called with each layer that is no model; returns its new layer with its weights to
            be copied, or None for a plain copy. A layer that is used several times stays one.
    """
    pairs: dict[int, tuple] = {}

    def clone(layer):
        if id(layer) not in pairs:
            new = clone_model(layer) if is_cloneable(layer) else change(layer)
            pairs[id(layer)] = (layer, new if new is not None else copied(layer))
        return pairs[id(layer)][1]

    def clone_model(inner):
        return tf_keras.models.clone_model(inner, clone_function=clone)

    new = clone_model(model)
    if not new.built:
        new.build(model.input_shape)
    for old, copy in pairs.values():
        if not is_cloneable(old):
            _copy_weights(old, copy)
    sites.set_shares(new)
    return new


def copied(layer: tf_keras.layers.Layer) -> tf_keras.layers.Layer:
    """A new layer of the same configuration."""
    return type(layer).from_config(layer.get_config())


def _copy_weights(old, new) -> None:
    """A wrapper gets the weights of the layer, and its quantizers start from them."""
    if isinstance(new, KerasbitsQuantizeWrapper) and not isinstance(old, KerasbitsQuantizeWrapper):
        new.layer.set_weights(old.get_weights())
        new.reset_quantizers()
    elif old.weights:
        new.set_weights(old.get_weights())
