"""The settings as absl flags, declared when a program asks for it.

    def main(argv):
        settings = settings_from_flags()

    if __name__ == "__main__":
        define_flags()
        app.run(main)

Later ones win: defaults, `--config_file`s, flags that were given, `--params_override`s.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from absl import flags
from networks import NETWORKS
from recipes import INPUT_METHODS, METHODS

from training.agreement import network_options
from training.config_files import Layer, default_of, override_layer, read_layer, resolve
from training.settings import ALIASES, Settings, names, value_of
from training.texts import parse_table
from training.values import Choice, Number, Place, Power, Size, Switch, Table, Whole

# --help shows the flags of the main module: let these count as declared by whoever asks for them.
flags.disclaim_key_flags()


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declare a flag for each setting, and those that name files and overrides.

    Args:
        values: where to declare them.
    """
    flags.DEFINE_multi_string(
        "config_file",
        [],
        "YAML file of settings, 'name: value' lines with the names of these flags. Of several, "
        "later ones win; flags win over files",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "params_override",
        [],
        "Settings that win over all else: learning_rate=1e-3,method_options.bits=4 or, as YAML, "
        "'{rules: {head/.*: null}}'; null is the default",
        flag_values=values,
    )
    for name in names():
        _define(name, values)
    for alias, name in ALIASES.items():
        flags.DEFINE_alias(alias, name, flag_values=values)


def settings_from_flags(values: flags.FlagValues = flags.FLAGS) -> Settings:
    """The settings that flags, files and overrides say together (see `config_files.resolve`).

    Raises:
        ValueError: with the setting, what was expected, what came, and from where.
    """
    layers = [read_layer(path) for path in values["config_file"].value]
    layers += [Layer(f"flag --{name}", {name: _value(name, values)}) for name in _given(values)]
    layers += [override_layer(text) for text in values["params_override"].value]
    return resolve(layers)


def _given(values: flags.FlagValues) -> Iterator[str]:
    """Names of settings whose flags were given, or assigned by a program."""
    for name in names():
        if values[name].present or not values[name].using_default_value:
            yield name


def _value(name: str, values: flags.FlagValues) -> Any:
    """What a flag says; the tables of a repeated one put together."""
    found = values[name].value
    if isinstance(value_of(name), Table) and isinstance(found, list):
        return {key: value for table in found for key, value in table.items()}
    return found


def _define(name: str, values: flags.FlagValues) -> None:
    """Declare the flag of one setting. Bounds are checked with the settings of other sources."""
    kind, default = value_of(name), default_of(name)
    text = kind.help + _more_help(name)
    match kind:
        case Choice():
            flags.DEFINE_enum(name, default, kind.choices, text, flag_values=values)
        case Whole():
            flags.DEFINE_integer(name, default, text, flag_values=values)
        case Number() | Power():
            flags.DEFINE_float(name, default, text, flag_values=values)
        case Switch():
            flags.DEFINE_bool(name, default, text, flag_values=values)
        case Place():
            flags.DEFINE_string(name, default, text, flag_values=values)
        case Table():
            # Repeated, because a second one would silently take the place of the first.
            flags.DEFINE_multi(_TableParser(), _Serializer(), name, None, text, values)
        case Size():
            flags.DEFINE(_SizeParser(), name, None, text, values, _Serializer())


def _more_help(name: str) -> str:
    """The options that the tables take."""
    if name in ("method_options", "input_options"):
        methods = METHODS if name == "method_options" else INPUT_METHODS
        return "".join(f"\n{method}: {_options(q)}." for method, q in methods.items())
    if name == "network_options":
        found = {network: network_options(network) for network in NETWORKS}
        return "".join(f"\n{n}: {_listed(options)}." for n, options in found.items() if options)
    return ""


def _options(quantizer) -> str:
    return _listed({f.name: getattr(quantizer, f.name) for f in dataclasses.fields(quantizer)})


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_as_text(value)}" for name, value in options.items())


def _as_text(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


class _TableParser(flags.ArgumentParser):
    """Names with values."""

    syntactic_help = "a table: name=value with commas between, or YAML in braces"

    def parse(self, argument):
        """The dictionary in a text."""
        return parse_table(argument)

    def flag_type(self):
        """For `--helpxml`."""
        return "table"


class _SizeParser(flags.ArgumentParser):
    """Rows and columns."""

    syntactic_help = "a size: 32, or rows and columns as 24x32"

    def parse(self, argument):
        """Two numbers; one number stands for both."""
        parts = argument.strip().split("x")
        if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
            raise ValueError("expected a number of pixels, or rows and columns as 24x32")
        return int(parts[0]), int(parts[-1])

    def flag_type(self):
        """For `--helpxml`."""
        return "size"


class _Serializer(flags.ArgumentSerializer):
    """Back into what the parsers take, for flag files that absl writes."""

    def serialize(self, value):
        """A table as YAML in braces, a size as 24x32."""
        return json.dumps(value) if isinstance(value, dict) else "x".join(map(str, value))
