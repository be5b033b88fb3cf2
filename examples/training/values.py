"""Kinds of values that a setting can have: what is allowed, and the error where it is not."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import math
import numbers
import os
from collections.abc import Iterable, Mapping
from typing import Any


class SettingError(ValueError):
    """A setting that is not allowed; `name` is the setting's."""

    def __init__(self, name: str, problem: str):
        super().__init__(f"{name}: {problem}")
        self.name, self.problem = name, problem

    def at(self, origin: str) -> SettingError:
        """The same error, with the source of the setting."""
        return SettingError(self.name, f"{self.problem} ({origin})")


LONGEST = 80
"""Characters of a value in a message."""


def short(what: Any) -> str:
    """A value or an error on one line that is not too long."""
    text = " ".join((str(what) if isinstance(what, Exception) else repr(what)).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


FEW = 12
"""Names that a message can list."""


def nearest(name: Any, known: Iterable[str]) -> str:
    """The end of a message on an unknown name: the known one that looks like it, or all if few."""
    known = list(known)
    if like := difflib.get_close_matches(str(name), known, 1):
        return f"; did you mean {like[0]!r}?"
    return f"; expected one of {', '.join(known)}" if len(known) <= FEW else "; see --helpfull"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Value:
    """What a setting may be.

    Args:
        help: what the setting does, as `--help` says it.
        free: whether it may change when a run is resumed, because no step of the training
            depends on it.
        optional: whether it may be None.
    """

    help: str
    free: bool = False
    optional: bool = False

    @property
    def has_none(self) -> bool:
        """Whether null is a value of its own. Where it is not, it stands for the default."""
        return False

    def checked(self, name: str, value: Any) -> Any:
        """The value in its proper type.

        Raises:
            SettingError: not a value of this kind.
        """
        if value is None and self.optional:
            return None
        return self._checked(name, value)

    def _checked(self, name, value):
        raise NotImplementedError

    def _error(self, name, expected, value) -> SettingError:
        return SettingError(name, f"expected {expected}, got {short(value)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice(Value):
    """One of some words. None means the word "none", where that is one of them."""

    choices: tuple[str, ...]

    @property
    def has_none(self) -> bool:
        """Whether there is a word for nothing."""
        return "none" in self.choices

    def _checked(self, name, value):
        value = "none" if value is None and self.has_none else value
        if not isinstance(value, str) or value not in self.choices:
            raise self._error(name, f"one of {', '.join(self.choices)}", value)
        return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole(Value):
    """A whole number in `[low, high]`, or one of `choices`."""

    low: int = 0
    high: float = math.inf
    choices: tuple[int, ...] = ()

    def _checked(self, name, value):
        whole = isinstance(value, numbers.Real) and not isinstance(value, bool)
        whole = whole and math.isfinite(value) and int(value) == value
        if not whole or not self.low <= value <= self.high:
            most = "" if math.isinf(self.high) else f" and at most {self.high}"
            raise self._error(name, f"a whole number of at least {self.low}{most}", value)
        if self.choices and value not in self.choices:
            raise self._error(name, f"one of {', '.join(map(str, self.choices))}", value)
        return int(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number(Value):
    """A finite number in `[low, high]`, or in `(low, high]` if it is `above` low."""

    low: float = 0.0
    high: float = math.inf
    above: bool = False

    def _checked(self, name, value):
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        low_enough = real and math.isfinite(value) and value <= self.high
        if not low_enough or value < self.low or (self.above and value == self.low):
            expected = f"{'more than' if self.above else 'at least'} {self.low:g}"
            most = "" if math.isinf(self.high) else f" and at most {self.high:g}"
            raise self._error(name, f"a number of {expected}{most}", value)
        return float(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Power(Value):
    """A power of two, as 0.25, 1 or 16."""

    def _checked(self, name, value):
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not real or not math.isfinite(value) or value <= 0 or math.frexp(value)[0] != 0.5:
            raise self._error(name, "a power of two, as 0.25, 1 or 16", value)
        return float(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Switch(Value):
    """True or False."""

    def _checked(self, name, value):
        if not isinstance(value, bool):
            raise self._error(name, "true or false", value)
        return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place(Value):
    """The path of a file or folder. `~` is the home folder: shells leave it in `--flag=~/x`.

    Args:
        suffixes: how the name of the file may end; none means any.
    """

    suffixes: tuple[str, ...] = ()

    def _checked(self, name, value):
        if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
            raise self._error(name, "a path", value)
        if self.suffixes and not os.fspath(value).endswith(self.suffixes):
            raise self._error(name, f"a path ending in {' or '.join(self.suffixes)}", value)
        return os.path.expanduser(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size(Value):
    """Rows and columns: `(24, 32)`, or one number for both."""

    def _checked(self, name, value):
        pair = [value, value] if isinstance(value, int) else value
        whole = isinstance(pair, (list, tuple)) and len(pair) == 2
        if not whole or any(type(n) is not int or n < 1 for n in pair):
            raise self._error(name, "a number of pixels, or rows and columns as 24x32", value)
        return tuple(pair)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table(Value):
    """Names with values, `{name: value}`.

    Args:
        newest_first: whether names of later sources come before those of earlier ones, as rules
            do, of which the first one counts.
    """

    newest_first: bool = False

    def _checked(self, name, value):
        if not isinstance(value, Mapping) or any(not isinstance(key, str) for key in value):
            raise self._error(name, "names with values, as {name: value}", value)
        return copy.deepcopy(dict(value))
