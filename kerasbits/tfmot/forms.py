"""Which tf_keras layers can be quantized, and where in them quantizers work."""

from __future__ import annotations

import dataclasses
import inspect

import keras
import tf_keras

from kerasbits.layers import (
    QuantConv1D,
    QuantConv1DTranspose,
    QuantConv2D,
    QuantConv2DTranspose,
    QuantDense,
    QuantDepthwiseConv1D,
    QuantDepthwiseConv2D,
    QuantEmbedding,
    QuantizedLayer,
    QuantSeparableConv1D,
    QuantSeparableConv2D,
)
from kerasbits.quantizers import Site

GEOMETRY = (
    "units",
    "filters",
    "kernel_size",
    "strides",
    "padding",
    "output_padding",
    "data_format",
    "dilation_rate",
    "groups",
    "depth_multiplier",
    "input_dim",
    "output_dim",
)
"""Settings of a layer on which the shapes and costs of its quantizers depend."""


@dataclasses.dataclass(frozen=True)
class Form:
    """How a layer is quantized.

    Args:
        quantized: the Keras 3 class of the same layer.
        kernels: attributes of the kernels, one for each step of the layer.
    """

    quantized: type[QuantizedLayer]
    kernels: tuple[str, ...] = ("kernel",)


_DEPTHWISE = ("depthwise_kernel",)
_SEPARABLE = ("depthwise_kernel", "pointwise_kernel")

FORMS: dict[type, Form] = {
    tf_keras.layers.Conv1D: Form(QuantConv1D),
    tf_keras.layers.Conv1DTranspose: Form(QuantConv1DTranspose),
    tf_keras.layers.Conv2D: Form(QuantConv2D),
    tf_keras.layers.Conv2DTranspose: Form(QuantConv2DTranspose),
    tf_keras.layers.Dense: Form(QuantDense),
    tf_keras.layers.DepthwiseConv1D: Form(QuantDepthwiseConv1D, _DEPTHWISE),
    tf_keras.layers.DepthwiseConv2D: Form(QuantDepthwiseConv2D, _DEPTHWISE),
    tf_keras.layers.Embedding: Form(QuantEmbedding, ("embeddings",)),
    tf_keras.layers.SeparableConv1D: Form(QuantSeparableConv1D, _SEPARABLE),
    tf_keras.layers.SeparableConv2D: Form(QuantSeparableConv2D, _SEPARABLE),
}
"""The form of each layer class that has one. Subclasses have none: nobody knows what else they
do."""


def form_of(layer) -> Form | None:
    """The form of a layer; None if it has none.

    Keras 3 has no causal separable convolution, so nothing could be exported from it.
    """
    form = FORMS.get(type(layer))
    causal = getattr(layer, "padding", None) == "causal"
    return None if form is None or (causal and form.kernels == _SEPARABLE) else form


def quantized_class(layer) -> type[QuantizedLayer] | None:
    """The Keras 3 class of the same layer; None if it has none."""
    form = form_of(layer)
    return None if form is None else form.quantized


def is_unsupported(layer) -> bool:
    """Whether a layer has a kernel (a weight of two or more axes) but no form."""
    return form_of(layer) is None and any(len(w.shape) >= 2 for w in layer.weights)


def required_form(layer) -> Form:
    """The form of a layer.

    Raises:
        ValueError: it has none.
    """
    form = form_of(layer)
    if form is None:
        names = ", ".join(sorted(kind.__name__ for kind in FORMS))
        padding = " with causal padding" if type(layer) in FORMS else ""
        raise ValueError(
            f"layer '{layer.name}': expected a tf_keras layer that can be quantized ({names}), "
            f"got {type(layer).__module__}.{type(layer).__name__}{padding}"
        )
    return form


@dataclasses.dataclass(frozen=True)
class Step:
    """One kernel of a layer.

    Args:
        name: of the layer, or of the part of it that this step is.
        kind: name of the Keras 3 class of the step.
        kernel: attribute of the kernel.
        sites: by role.
    """

    name: str
    kind: str
    kernel: str
    sites: dict[str, Site]


def steps(layer, input_shape: tuple[int | None, ...]) -> tuple[Step, ...]:
    """The steps of a built layer, as the Keras 3 layer of the same settings has them.

    Args:
        layer: a tf_keras layer with a form.
        input_shape: with the batch axis.

    Raises:
        ValueError: a setting that Keras 3 does not allow.
    """
    form = required_form(layer)
    twin = _twin(layer, form)
    parts = twin.parts() if len(form.kernels) > 1 else (twin,)
    found = []
    for attribute, part in zip(form.kernels, parts, strict=True):
        sites = part.sites(input_shape, tuple(getattr(layer, attribute).shape))
        name = layer.name if part is twin else part.name
        found.append(Step(name, type(part).__name__, attribute, sites))
        input_shape = part.compute_output_shape(input_shape)
    return tuple(found)


def _twin(layer, form: Form) -> keras.layers.Layer:
    """The Keras 3 layer, never built: it only knows sizes."""
    plain = next(c for c in form.quantized.__mro__ if not issubclass(c, QuantizedLayer))
    config, known = layer.get_config(), inspect.signature(plain.__init__).parameters
    settings = {name: config[name] for name in GEOMETRY if name in known and name in config}
    try:
        # Keras 3 has no names with a slash.
        return form.quantized(**settings, name=layer.name.replace("/", "_"))
    except ValueError as error:
        raise ValueError(f"layer '{layer.name}': {error}") from None
