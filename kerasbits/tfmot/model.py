"""Turn a tf_keras model into one with quantized layers."""

from __future__ import annotations

from collections.abc import Mapping

import tf_keras

from kerasbits import sites
from kerasbits.host import checked_rate
from kerasbits.quantizers import Quantizer
from kerasbits.rules import Plan, Rule
from kerasbits.tfmot.cloning import check_model, cloned, copied, is_cloneable
from kerasbits.tfmot.config import KerasbitsQuantizeConfig
from kerasbits.tfmot.forms import FORMS, is_unsupported, quantized_class
from kerasbits.tfmot.wrapper import KerasbitsQuantizeWrapper


def quantize_model(
    model: tf_keras.Model,
    kernel: Quantizer | str | None = None,
    inputs: Quantizer | str | None = None,
    rules: Mapping[str, Rule | None] | None = None,
    strict: bool = False,
    rate: float = 1.0,
) -> tf_keras.Model:
    """A copy of a tf_keras model whose layers are quantized; as `kerasbits.quantize_model`.

    Args:
        model: a built Sequential or functional model, nested ones included.
        kernel: quantizer of the kernels; None leaves them float.
        inputs: quantizer of the inputs of the same layers; None leaves them float. Embeddings,
            whose inputs are whole numbers, ignore it.
        rules: `{regex: Rule or None}`. The first regex found in a layer's path (`block/conv` for
            nested models) replaces `kernel` and `inputs` for it; None leaves it as it is.
        strict: raise if a layer with a kernel has no quantized form, instead of keeping it float.
        rate: multiplies the learning rate of all variables of the quantizers, a power of two.

    Returns:
        A new model with the same weights and the same paths of layers, not compiled.

    Raises:
        ValueError: unknown method, a rule that matches nothing, an unsupported layer under
            `strict`, NaN in a weight, a model of Keras 3, subclassed or not built, a wrong rate.

    Example:
        q = quantize_model(model, kernel="bitpruning", inputs=Uniform(bits=8),
                           rules={"^conv1$": Rule(kernel=Uniform(8)), "predictions": None})
    """
    configs = configurations(model, kernel, inputs, rules, strict, rate)

    def change(layer):
        config = configs.get(id(layer))
        return None if config is None else KerasbitsQuantizeWrapper(copied(layer), config)

    return cloned(model, change)


def configurations(
    model, kernel, inputs, rules, strict: bool, rate: float
) -> dict[int, KerasbitsQuantizeConfig]:
    """The configuration of each layer that is to be quantized, by `id(layer)`.

    Raises:
        ValueError: as `quantize_model`.
    """
    check_model(model)
    layers = dict(sites.walk(model, is_cloneable))
    plan = Plan.of(kernel, inputs, rules, strict)
    checked_rate(rate, f"model '{model.name}'")
    forms = [form.quantized for form in FORMS.values()]
    chosen = plan.choose(layers, quantized_class, is_unsupported, forms)
    return {
        id(layers[path]): KerasbitsQuantizeConfig(rule.kernel, rule.inputs, rate)
        for path, rule in chosen.items()
    }
