"""The Keras 3 twins of layers that `kerasbits.tfmot` has quantized."""

from __future__ import annotations

from typing import Any

import keras

from kerasbits.tfmot.config import KerasbitsQuantizeConfig
from kerasbits.tfmot.forms import required_form
from kerasbits.tfmot.keras3_layers import translated


def is_quantized(layer: Any) -> bool:
    """Whether a tf_keras layer is one in the wrapper of kerasbits.

    Raises:
        ValueError: it is only annotated, not quantized yet.
    """
    if not isinstance(getattr(layer, "quantize_config", None), KerasbitsQuantizeConfig):
        return False
    if not hasattr(layer, "hosts") and not hasattr(layer, "layers"):
        raise ValueError(
            f"layer '{layer.name}': expected a quantized layer, got one that is annotated; call "
            "kerasbits.tfmot.quantize_apply(model) first"
        )
    return True


def quantized_layer(wrapper: Any) -> keras.layers.Layer:
    """The quantized Keras 3 layer, not built, of the same settings and quantizers."""
    config = wrapper.quantize_config
    form = required_form(wrapper.layer).quantized
    inputs = config.inputs if form.quantizes_inputs else None
    return translated(
        wrapper.layer,
        form=form,
        kernel_quantizer=config.kernel,
        input_quantizer=inputs,
        quantizer_rate=config.rate,
    )


def copy_states(wrapper: Any, twin: keras.layers.Layer) -> None:
    """Give a twin the kernels and bias of a quantized layer, and all that its quantizers know."""
    layer = wrapper.layer
    names = required_form(layer).kernels
    ours = twin.parts() if len(names) > 1 else (twin,)
    theirs = wrapper.layers if len(names) > 1 else (wrapper,)
    for name, new, old in zip(names, ours, theirs, strict=True):
        new.kernel.assign(getattr(layer, name))
        for role, host in old.hosts.items():
            _copy_state(host, new.hosts[role])
    if twin.bias is not None:
        twin.bias.assign(layer.bias)


def _copy_state(old, new) -> None:
    new.assign(old.state())
    new.set_share(old.site.share)
    if old.quantizer.stochastic:
        new.seed_generator.state.assign(old.seed_generator.state)
