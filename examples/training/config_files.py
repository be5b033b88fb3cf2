"""Settings from YAML files and overrides, and back into a file.

Sources are layers: each says where it comes from, and later ones win. A name that is null in a
layer goes back to its default. Tables (`method_options`, `rules`) are merged name by name.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from training.settings import FIELDS, Settings, canonical, value_of
from training.texts import mapping, parsed, put_once, split
from training.values import SettingError, Table, short

SAVED = "settings.yaml"
"""The file in `model_dir` that says what a run was started with."""

NOT_SAVED = ("model_dir", "mode")
"""Settings that a run does not take over from the time before."""

PAIR = re.compile(r"\s*([A-Za-z_]\w*(?:\.[^=]+)?)\s*=(.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Layer:
    """Settings from one source.

    Args:
        origin: the source, as messages name it: "file 'base.yaml'".
        values: settings by name.
    """

    origin: str
    values: Mapping[str, Any]


def read_layer(path: str | os.PathLike) -> Layer:
    """The settings in a YAML file.

    Raises:
        ValueError: no such file, or not one mapping in YAML; with the line.
    """
    origin = f"file '{path}'"
    try:
        text = pathlib.Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ValueError(f"{origin}: expected settings in YAML ({reason})") from None
    found = parsed(text, origin)
    if found is None:  # nothing but comments
        return Layer(origin, {})
    if not isinstance(found, dict):
        raise ValueError(f"{origin}: expected 'name: value' lines, got {short(found)}")
    return Layer(origin, found)


def override_layer(text: str, origin: str = "--params_override") -> Layer:
    """Settings as `learning_rate=1e-3,method_options.bits=4`, or as YAML in braces.

    What follows the first dot is a name in a table, all of it, so regexes may have dots.

    Raises:
        ValueError: not of this form.
    """
    if text.strip().startswith("{"):
        return Layer(origin, mapping(text, origin))
    found: dict[str, Any] = {}
    for part in split(text, origin):
        match = PAIR.fullmatch(part)
        if match is None:
            expected = "name=value with commas between, or {name: value}"
            raise ValueError(f"{origin}: expected {expected}, got {part.strip()!r}")
        name, value = match[1].strip(), parsed(match[2], origin)
        name, dot, inner = name.partition(".")
        if dot:
            table = found.setdefault(name, {})
            if not isinstance(table, dict):
                raise ValueError(
                    f"{origin}: expected {name!r} as one value or as a table, not both"
                )
            put_once(table, inner, value, origin)
        else:
            put_once(found, name, value, origin)
    return Layer(origin, found)


def merge(layers: Iterable[Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    """One value for each setting that some layer names, and the layer it is from.

    Raises:
        SettingError: an unknown name, or a value that is not allowed, with its source.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        seen = {}
        for written, value in layer.values.items():
            try:
                name = canonical(written)
                if name in seen:
                    raise SettingError(written, f"expected it or {seen[name]!r}, got both")
                new = _checked(name, value)
            except SettingError as error:
                raise error.at(layer.origin) from None
            seen[name] = written
            if isinstance(value_of(name), Table) and value is not None:
                new = _merged(value_of(name), values.get(name, {}), new)
            values[name], origins[name] = new, layer.origin
    return values, origins


def resolve(layers: Iterable[Layer]) -> Settings:
    """The settings that the layers say, later ones before earlier ones before the defaults.

    If `model_dir` holds a run, what no layer names is as in that run, and what a layer names must
    not contradict it.

    Raises:
        ValueError: with the setting, what was expected, what came, and from where.

    Example:
        resolve([read_layer("base.yaml"), override_layer("model_dir=runs/1,method_options.bits=3")])
    """
    values, origins = merge(layers)
    folder = values.get("model_dir")
    if folder is None:
        raise SettingError("model_dir", "expected --model_dir=FOLDER, got none")
    path = pathlib.Path(folder, SAVED)
    before: dict[str, Any] = {}
    if path.is_file():
        earlier = read_settings(path)
        _check_resumed(earlier, values, origins)
        before = _without(earlier.to_dict(), NOT_SAVED)
    try:
        return Settings.from_dict({**before, **values})
    except SettingError as error:
        if error.name in before and error.name not in origins:
            raise error.at(f"file '{path}'") from None
        raise (error.at(origins[error.name]) if error.name in origins else error) from None


def _check_resumed(earlier: Settings, values: Mapping[str, Any], origins: Mapping[str, str]):
    """Raise SettingError if something is to change that the steps of a training depend on."""
    for name, value in values.items():
        was = getattr(earlier, name)
        if value != was and not value_of(name).free:
            problem = f"expected {was!r}, as the run in '{values['model_dir']}' was started with"
            problem += f", got {value!r}; use another --model_dir"
            raise SettingError(name, problem).at(origins[name])


def read_settings(path: str | os.PathLike) -> Settings:
    """The settings that `write_settings` wrote.

    Raises:
        ValueError: not such a file.
    """
    layer = read_layer(path)
    try:
        return Settings.from_dict(layer.values)
    except SettingError as error:
        raise error.at(layer.origin) from None


def write_settings(settings: Settings, path: str | os.PathLike) -> None:
    """Write all settings as YAML, in the order of declaration.

    The file is complete under its name, or not there.

    Raises:
        OSError: the folder cannot be written.
    """
    temporary = f"{os.fspath(path)}.part"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(to_yaml(settings))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def to_yaml(settings: Settings) -> str:
    """All settings as YAML that `--config_file` takes."""
    return yaml.dump(
        settings.to_dict(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )


def default_of(name: str) -> Any:
    """The default of a setting, None where there is none."""
    field = FIELDS[name]
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _without(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _checked(name: str, value: Any) -> Any:
    """A value in its type; the default for null, where that is no value of its own."""
    kind = value_of(name)
    return default_of(name) if value is None and not kind.has_none else kind.checked(name, value)


def _merged(kind: Table, before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    if kind.newest_first:
        return {**now, **_without(before, now)}
    return {**before, **now}


class _Dumper(yaml.SafeDumper):
    """Writes a value twice rather than naming it the first time."""

    def ignore_aliases(self, data):
        """Of all values."""
        return True
