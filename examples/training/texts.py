"""Text that people write settings in: YAML, and `name=value` with commas between."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

from training.values import short

BRACKETS = {"(": ")", "[": "]", "{": "}"}

KEPT = ("bool", "null")
"""Of what PyYAML recognizes, beside numbers, which are recognized anew."""

DIGITS = list("-+.0123456789")
"""First characters of numbers."""


def parse_table(text: str) -> dict[str, Any]:
    """A table as `bits=4,signed=true`, or as YAML in braces.

    Raises:
        ValueError: not of this form.

    Example:
        >>> parse_table("scheme=ls1, k=3")
        {'scheme': 'ls1', 'k': 3}
    """
    if text.strip().startswith("{"):
        return mapping(text)
    found = {}
    for part in split(text):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"expected name=value with commas between, got {part.strip()!r}")
        put_once(found, name.strip(), parsed(value))
    return found


def put_once(table: dict[str, Any], name: str, value: Any, origin: str = "") -> None:
    """Put a value into a table.

    Raises:
        ValueError: it has that name already.
    """
    if name in table:
        raise ValueError(f"{_at(origin)}expected each name once, got {name!r} twice")
    table[name] = value


def mapping(text: str, origin: str = "") -> dict[str, Any]:
    """A table in YAML.

    Raises:
        ValueError: something else.
    """
    found = parsed(text, origin)
    if not isinstance(found, dict):
        raise ValueError(f"{_at(origin)}expected {{name: value}}, got {short(found)}")
    return found


def split(text: str, origin: str = "") -> list[str]:
    """Cut at the commas that are outside of quotes and brackets; blank parts are dropped.

    Raises:
        ValueError: a quote or bracket without its partner.
    """
    parts, start, closing, quote = [], 0, [], ""
    for at, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in BRACKETS:
            closing.append(BRACKETS[char])
        elif char in BRACKETS.values():
            if not closing or closing.pop() != char:
                raise ValueError(f"{_at(origin)}expected brackets in pairs, got {text!r}")
        elif char == "," and not closing:
            parts.append(text[start:at])
            start = at + 1
    if closing or quote:
        raise ValueError(f"{_at(origin)}expected brackets and quotes in pairs, got {text!r}")
    return [part for part in [*parts, text[start:]] if part.strip()]


def parsed(text: str, origin: str = "") -> Any:
    """What a text in YAML means.

    Args:
        text: YAML of plain types: texts, numbers, true and false, null, lists, tables.
        origin: where it is from, for messages; nothing if the caller says so.

    Raises:
        ValueError: not YAML, with the line; or a name twice in a table.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        many = mark is not None and "\n" in text.strip()
        where = f"{origin}, line {mark.line + 1}" if many else origin
        raise ValueError(f"{_at(where)}expected YAML ({error.problem or error.context})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{_at(origin)}expected YAML ({short(error)})") from None


def _at(origin: str) -> str:
    return f"{origin}: " if origin else ""


class _Loader(yaml.SafeLoader):
    """Plain YAML whose numbers are those that people write.

    PyYAML reads `1e-3` as a text and `1:30` as 90, and takes the last of two equal names.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, list]] = {
        first: [(tag, found) for tag, found in resolvers if tag.rpartition(":")[2] in KEPT]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        """A dictionary; two equal names are an error."""
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, name in enumerate(names):
            if name in names[:index]:
                mark = node.value[index][0].start_mark
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name!r} is there twice", mark
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9]\d*)$"), DIGITS)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?$|[-+]?\.(inf|nan)$"),
    DIGITS,
)
