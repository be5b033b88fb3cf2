"""From settings to the arguments of `quantize_model`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from recipes import ENDS, INPUT_METHODS, METHODS, Recipe, careful

import kerasbits as kb
from training.values import SettingError, nearest

ROLES = {"kernel": METHODS, "inputs": INPUT_METHODS}
"""What a rule may speak of, and the methods for it."""


class Wanted(Protocol):
    """The settings that make a recipe."""

    method: str
    method_options: Mapping[str, Any]
    input_method: str
    input_options: Mapping[str, Any]
    rules: Mapping[str, Any]
    paper_rules: bool


def recipe(settings: Wanted, model=None) -> Recipe:
    """The quantizers that the settings ask for, and the layers that get others.

    Rules of the settings come first, then the exceptions that the method's paper makes for the
    first and the last layer (see `recipes.careful`).

    Args:
        settings: what is wanted.
        model: the float model, of Keras 3 or tf_keras, whose first and last layer count. None
            means a network of the examples, where they have the names `recipes.ENDS`.

    Raises:
        SettingError: an unknown method or option, or a value that the method does not take.

    Example:
        chosen = recipe(settings, model)
        q = kb.quantize_model(model, chosen.kernel, chosen.inputs, chosen.rules)
    """
    kernel = _changed("method_options", METHODS[settings.method], settings.method_options)
    inputs = None
    if settings.input_method != "none":
        usual = INPUT_METHODS[settings.input_method]
        inputs = _changed("input_options", usual, settings.input_options)
    elif settings.input_options:
        raise SettingError("input_options", "expected none, as --input_method is 'none'")
    rules = {r: _rule(r, what, kernel, inputs) for r, what in settings.rules.items()}
    if settings.paper_rules:
        first_and_last = ENDS if model is None else ends(model)
        for pattern, rule in careful(kernel, inputs, first_and_last).rules.items():
            path = next(p for p in first_and_last if re.search(pattern, p))
            if not any(re.search(r, path) for r in rules):
                rules[pattern] = rule
    return Recipe(kernel, inputs, rules)


def ends(model) -> tuple[str, str]:
    """Paths of the first and the last layer with a quantized form, in Keras' order of the layers.

    Raises:
        SettingError: no layer has one.
    """
    paths = [p for p, layer in _leaves(model) if hasattr(kb.layers, f"Quant{type(layer).__name__}")]
    if not paths:
        problem = f"expected layers that can be quantized, got none in the model '{model.name}'"
        raise SettingError("network", problem)
    return paths[0], paths[-1]


def _leaves(model, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Paths and layers, nested models opened. Both kinds of Keras call their parts `layers`."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _leaves(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix + layer.name, layer


def _rule(pattern: str, what: Any, kernel: kb.Quantizer, inputs: kb.Quantizer | None):
    """The rule that one entry of the settings means."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise SettingError("rules", f"expected regexes, got {pattern!r} ({error})") from None
    if what is None:
        return None
    if not isinstance(what, Mapping):
        expected = "null, or a mapping with 'kernel' or 'inputs'"
        raise SettingError("rules", f"{pattern!r}: expected {expected}, got {what!r}")
    for role in what:
        if role not in ROLES:
            raise SettingError("rules", f"{pattern!r}: unknown name {role!r}{nearest(role, ROLES)}")
    chosen = {"kernel": kernel, "inputs": inputs}
    for role, quantizer in what.items():
        chosen[role] = _quantizer(f"{pattern!r}: {role}: ", role, quantizer, chosen[role])
    return kb.Rule(**chosen)


def _quantizer(place: str, role: str, what: Any, usual: kb.Quantizer | None):
    """The quantizer that a rule names: null, a method, or a method with options."""
    if what is None or what == "none":
        return None
    options = {"method": what} if isinstance(what, str) else what
    if not isinstance(options, Mapping):
        expected = "null, a method, or a mapping with options"
        raise SettingError("rules", f"{place}expected {expected}, got {what!r}")
    options = dict(options)
    method = options.pop("method", None)
    if method is None and usual is None:
        raise SettingError("rules", f"{place}expected a method, got only {what!r}")
    if method is not None and method not in ROLES[role]:
        known = ", ".join(ROLES[role])
        raise SettingError("rules", f"{place}expected one of {known}, got {method!r}")
    return _changed("rules", usual if method is None else ROLES[role][method], options, place)


def _changed(
    setting: str, quantizer: kb.Quantizer, options: Mapping[str, Any], place: str = ""
) -> kb.Quantizer:
    """A quantizer with some of its fields replaced."""
    known = [field.name for field in dataclasses.fields(quantizer)]
    for name in options:
        if name not in known:
            problem = f"{type(quantizer).__name__} has no option {name!r}{nearest(name, known)}"
            raise SettingError(setting, place + problem)
    try:
        return dataclasses.replace(quantizer, **options)
    except (TypeError, ValueError) as error:
        raise SettingError(setting, f"{place}{error}") from None
