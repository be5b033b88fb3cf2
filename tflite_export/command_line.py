"""Flags of a program, parsed without global state, and errors as one line."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable

from absl import flags

WRONG_USAGE = 2
FAILED = 1


def run(
    argv: list[str],
    usage: str,
    define: Callable[[flags.FlagValues], None],
    work: Callable[[flags.FlagValues, list[str]], None],
) -> int:
    """Parse flags, do the work, and return the exit status.

    Args:
        argv: name of the program and its arguments.
        usage: how to call it and what it does, shown by `--help`. The third word of its first
            line names the program in errors.
        define: adds the flags to a `FlagValues`.
        work: gets the flags and the other arguments. `ValueError` and `OSError` become one line
            on the error stream and status 1.

    Returns:
        0, or 1 if the work failed, or 2 for arguments that are wrong.
    """
    name = usage.split()[2].rpartition(".")[2]
    values = flags.FlagValues()
    define(values)
    flags.DEFINE_bool("help", False, "Show this help.", short_name="h", flag_values=values)
    try:
        rest = values(argv)[1:]
    except flags.Error as error:
        return _fail(f"{name}: {error}", WRONG_USAGE)
    if values.help:
        print(f"{usage}\n\nFlags:{_help(values)}")
        return 0
    try:
        work(values, rest)
    except UsageError as error:
        return _fail(f"{name}: {error}; see --help", WRONG_USAGE)
    except ValueError as error:
        return _fail(f"{name}: {error}", FAILED)
    except OSError as error:
        where = f"file '{error.filename}': " if error.filename else ""
        return _fail(f"{name}: {where}{error.strerror or error}", FAILED)
    return 0


class UsageError(Exception):
    """Arguments that make no sense together."""


def _help(values: flags.FlagValues) -> str:
    lines = []
    for name in sorted(values):
        flag = values[name]
        if name != flag.name:  # a short name
            continue
        takes = "" if flag.boolean else f"={_meaning(flag)}"
        switch = "[no]" if flag.boolean and flag.default else ""
        text = flag.help.partition(">: ")[2] or flag.help  # absl puts the choices in front
        default = f" Default: {flag.default}." if takes and flag.default is not None else ""
        body = textwrap.fill(text + default, 90, initial_indent=" " * 6, subsequent_indent=" " * 6)
        lines.append(f"\n  --{switch}{name}{takes}\n{body}")
    return "".join(lines)


def _meaning(flag: flags.Flag) -> str:
    choices = getattr(flag.parser, "enum_values", None)
    number = isinstance(flag.parser, flags.IntegerParser)
    return "|".join(choices) if choices else "NUMBER" if number else "FILE"


def _fail(message: str, status: int) -> int:
    print(" ".join(message.split()), file=sys.stderr)
    return status
