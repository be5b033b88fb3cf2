"""Which quantizers each layer of a model gets: regexes over the paths of its layers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kerasbits import quantizers, sites
from kerasbits.quantizers import Quantizer


@dataclasses.dataclass(frozen=True)
class Rule:
    """How to quantize the layers that a rule matches: quantizers, names of them, or None."""

    kernel: Quantizer | str | None = None
    inputs: Quantizer | str | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """A rule for all layers, and other rules for those that a regex finds.

    Args:
        default: for layers that no regex finds.
        rules: `{regex: Rule or None}`; the first regex found in a path wins.
        strict: whether a layer with a kernel must have a quantized form.
    """

    default: Rule
    rules: Mapping[str, Rule | None]
    strict: bool

    @classmethod
    def of(cls, kernel, inputs, rules, strict: bool) -> Plan:
        """From the arguments of `quantize_model`.

        Raises:
            ValueError: unknown quantizers, or ones for another role, or none at all; rules that
                are none.
        """
        default = resolved(Rule(kernel, inputs), "the arguments")
        _check_rules(rules)
        found = {
            k: r if r is None else resolved(r, f"rule {k!r}") for k, r in (rules or {}).items()
        }
        if all(rule in (None, Rule()) for rule in (default, *found.values())):
            raise ValueError(
                "quantize_model: expected a quantizer for kernels or inputs, or a rule that has "
                "one, got none"
            )
        return cls(default, found, strict)

    def choose(
        self,
        layers: Mapping[str, Any],
        form: Callable[[Any], type | None],
        is_unsupported: Callable[[Any], bool],
        forms: Iterable[type],
    ) -> dict[str, Rule]:
        """The rule of each layer that is to be replaced, by path.

        Args:
            layers: by path.
            form: the quantized class of a layer, None if there is none.
            is_unsupported: whether a layer has a kernel but no quantized class.
            forms: all quantized classes, for messages.

        Raises:
            ValueError: a rule that does nothing, a layer that is quantized already, no layer that
                can be quantized, or under `strict` an unsupported one.
        """
        used: set[str] = set()
        vain: dict[str, str] = {}  # rules that only matched layers they can do nothing to
        chosen: dict[str, Rule] = {}
        for path, layer in layers.items():
            pattern, rule = self._match(path)
            quantized = form(layer)
            wanted = rule is not None and not (rule.kernel is None and rule.inputs is None)
            if quantized is not None and wanted and not quantized.quantizes_inputs:
                rule = Rule(rule.kernel)
            does = quantized is not None and wanted and rule != Rule()
            if pattern is not None and (does or not wanted):
                used.add(pattern)
            elif pattern is not None:
                vain[pattern] = f"{path} ({type(layer).__name__})"
            if does:
                chosen[path] = rule
            elif wanted:
                self._check_left(path, layer, is_unsupported, forms)
        self._check_used(used, vain, layers)
        if not chosen:
            raise ValueError(
                "quantize_model: expected at least one layer to quantize, got none with a "
                f"quantized form among {list(layers)}, or rules that leave them as they are"
            )
        return chosen

    def _match(self, path: str) -> tuple[str | None, Rule | None]:
        """The first pattern that matches a layer, and its rule; no pattern and the default."""
        pattern = next((p for p in self.rules if re.search(p, path)), None)
        return pattern, self.default if pattern is None else self.rules[pattern]

    def _check_left(self, path, layer, is_unsupported, forms) -> None:
        """Whether a layer may stay as it is although a rule wants it quantized."""
        if sites.is_quantized(layer):
            raise ValueError(
                f"layer '{path}': expected a float layer, got {type(layer).__name__}, which is "
                f"quantized already; quantize the float model, or leave the layer as it is by "
                f"a rule {{{path!r}: None}}"
            )
        if self.strict and is_unsupported(layer):
            names = ", ".join(sorted(c.__name__ for c in forms))
            raise ValueError(
                f"layer '{path}': expected a layer with a quantized form ({names}), got "
                f"{type(layer).__name__}; a rule {{{path!r}: None}} keeps it float"
            )

    def _check_used(self, used: set[str], vain: Mapping[str, str], layers: Iterable[str]) -> None:
        """Whether each rule did something to a layer."""
        unused = [pattern for pattern in self.rules if pattern not in used]
        if useless := [pattern for pattern in unused if pattern in vain]:
            raise ValueError(
                f"rule {useless[0]!r}: expected to match a layer that can be quantized, got only "
                f"{vain[useless[0]]} and the like"
            )
        if unused:
            raise ValueError(
                f"expected every rule to match a layer, but {unused} match none of {list(layers)}"
            )


def resolved(rule: Rule, where: str) -> Rule:
    """A rule whose quantizers are instances; `where` begins the messages.

    Raises:
        ValueError: no rule, an unknown quantizer, or one for another role.
    """
    if not isinstance(rule, Rule):
        raise ValueError(f"{where}: expected a kerasbits.Rule or None, got {rule!r}")
    try:
        return Rule(quantizers.get(rule.kernel, "kernel"), quantizers.get(rule.inputs, "input"))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _check_rules(rules) -> None:
    if rules is not None and not isinstance(rules, Mapping):
        raise ValueError(f"rules: expected a dictionary from regex to Rule or None, got {rules!r}")
    for pattern in rules or {}:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(f"rules: expected regexes, got {pattern!r} ({error})") from None
