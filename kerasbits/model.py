"""Turn a Keras model into one with quantized layers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from kerasbits import sites
from kerasbits.host import checked_rate
from kerasbits.layers import (
    QuantConv1D,
    QuantConv1DTranspose,
    QuantConv2D,
    QuantConv2DTranspose,
    QuantDense,
    QuantDepthwiseConv1D,
    QuantDepthwiseConv2D,
    QuantEinsumDense,
    QuantEmbedding,
    QuantizedLayer,
    QuantSeparableConv1D,
    QuantSeparableConv2D,
)
from kerasbits.quantizers import Quantizer
from kerasbits.rules import Plan, Rule

QUANTIZED_FORMS: dict[type, type[QuantizedLayer]] = {
    keras.layers.Conv1D: QuantConv1D,
    keras.layers.Conv1DTranspose: QuantConv1DTranspose,
    keras.layers.Conv2D: QuantConv2D,
    keras.layers.Conv2DTranspose: QuantConv2DTranspose,
    keras.layers.Dense: QuantDense,
    keras.layers.DepthwiseConv1D: QuantDepthwiseConv1D,
    keras.layers.DepthwiseConv2D: QuantDepthwiseConv2D,
    keras.layers.EinsumDense: QuantEinsumDense,
    keras.layers.Embedding: QuantEmbedding,
    keras.layers.SeparableConv1D: QuantSeparableConv1D,
    keras.layers.SeparableConv2D: QuantSeparableConv2D,
}
"""The quantized form of each plain layer that has one. Subclasses have none: nobody knows what
else they do."""


def quantize_model(
    model: keras.Model,
    kernel: Quantizer | str | None = None,
    inputs: Quantizer | str | None = None,
    rules: Mapping[str, Rule | None] | None = None,
    strict: bool = False,
    rate: float = 1.0,
) -> keras.Model:
    """A copy of `model` whose layers are quantized; the given model is left alone.

    Args:
        model: a built Sequential or functional model, nested ones included.
        kernel: quantizer of the kernels; None leaves them float.
        inputs: quantizer of the inputs of the same layers; None leaves them float. Embeddings,
            whose inputs are whole numbers, ignore it.
        rules: `{regex: Rule or None}`. The first regex found in a layer's path (`block/conv`
            for nested models) replaces `kernel` and `inputs` for it; None leaves it as it is.
        strict: raise if a layer with a kernel has no quantized form, instead of keeping it float.
        rate: multiplies the learning rate of all variables of the quantizers (bits, gates, scales
            and ranges), beside what each method has chosen for them; a power of two.

    Returns:
        A new model with the same weights, not compiled. Input ranges are set by `calibrate`,
        or by the first batch of training.

    Raises:
        ValueError: unknown method, no quantizer at all, a rule that matches nothing, a layer that
            is quantized already, no layer that can be, an unsupported one under `strict`, NaN in a
            weight, a model that is not built or is subclassed, a rate that is no power of two.

    Example:
        q = quantize_model(model, kernel="bitpruning", inputs=Uniform(bits=8),
                           rules={"^conv1$": Rule(kernel=Uniform(8)), "predictions": None})
    """
    _check_model(model)
    rate = checked_rate(rate, "quantize_model")
    layers = dict(sites.walk(model, is_cloneable))
    plan = Plan.of(kernel, inputs, rules, strict)
    chosen = plan.choose(layers, quantized_form, is_unsupported, QUANTIZED_FORMS)
    by_identity = {id(layers[path]): rule for path, rule in chosen.items()}

    def clone(layer):
        rule = by_identity.get(id(layer))
        if rule is None:
            return layer.__class__.from_config(layer.get_config())
        return quantized_form(layer).from_config(
            {
                **layer.get_config(),
                "kernel_quantizer": rule.kernel,
                "input_quantizer": rule.inputs,
                "quantizer_rate": rate,
            }
        )

    with _uncompiled(model):
        new = keras.models.clone_model(model, clone_function=clone, recursive=True)
    if not new.built:
        new.build(model.input_shape)
    _copy_weights(layers, dict(sites.walk(new, is_cloneable)))
    sites.set_shares(new)
    return new


@contextlib.contextmanager
def _uncompiled(model):
    """Hide from Keras that a model is compiled, as its clones would be compiled like it.

    Keras would build an optimizer for them, before the weights are final, and fails on losses
    that it cannot serialize.
    """
    compiled = [m for m in _models(model) if m.compiled]
    for m in compiled:
        m.compiled = False
    try:
        yield
    finally:
        for m in compiled:
            m.compiled = True


def _models(layer):
    """A model and the models inside it."""
    if isinstance(layer, keras.Model):
        yield layer
        for child in layer.layers:
            yield from _models(child)


def _check_model(model) -> None:
    if not isinstance(model, keras.Model):
        kind = f"{type(model).__module__}.{type(model).__name__}"
        remedy = "; use kerasbits.tfmot.quantize_model" if kind.startswith("tf_keras.") else ""
        raise ValueError(f"quantize_model: expected a Keras 3 model, got {kind}{remedy}")
    if not model.built:
        raise ValueError(
            f"model '{model.name}': expected a built model, got one without weights; "
            "give it an Input layer or call it once"
        )
    if not is_cloneable(model):
        raise ValueError(
            f"model '{model.name}': expected a Sequential or functional model, got the subclass "
            f"{type(model).__name__}, which Keras cannot clone; use kerasbits.layers inside it"
        )
    for path, layer in sites.walk(model):
        for weight in layer.weights:
            if "float" in str(weight.dtype) and not np.isfinite(ops.convert_to_numpy(weight)).all():
                raise ValueError(
                    f"layer '{path}': expected finite weights, got NaN or inf in '{weight.name}'"
                )


def is_cloneable(layer) -> bool:
    """Whether Keras clones this model layer by layer, as it does Sequential and functional ones."""
    return isinstance(layer, keras.Sequential) or (
        isinstance(layer, keras.Model) and type(layer).__name__ == "Functional"
    )


def quantized_form(layer) -> type[QuantizedLayer] | None:
    """The quantized class for a plain layer, or None if it stays as it is."""
    form = QUANTIZED_FORMS.get(type(layer))
    return form if form is not None and form.accepts(layer) else None


def is_unsupported(layer) -> bool:
    """Whether a layer has a kernel (a weight of two or more axes) but no quantized form."""
    quantized = isinstance(layer, QuantizedLayer) or quantized_form(layer) is not None
    return not quantized and any(len(w.shape) >= 2 for w in layer.weights)


def _copy_weights(old: dict, new: dict) -> None:
    """Copy by path, then start the quantizers from the copied kernels."""
    for path, source in old.items():
        if not source.weights:  # input layers, for one, get new names
            continue
        if path not in new:
            raise ValueError(f"layer '{path}': expected it in the cloned model, got no such layer")
        target = new[path]
        if type(source) is type(target):
            target.set_weights(source.get_weights())
        else:
            target.copy_from(source)
