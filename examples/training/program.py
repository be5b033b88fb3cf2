"""The frame of a training program: flags, one line for an error, one line of JSON at the end."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import app, flags, logging

from training.flags import settings_from_flags
from training.kinds import Kind
from training.results import json_line
from training.running import Outcome, run
from training.settings import Settings

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
"""Exit statuses."""


def start(name: str, kind: Callable[[], Kind]) -> None:
    """Parse the flags, which are declared already, do what they say, and exit.

    Args:
        name: of the program.
        kind: makes the kind of Keras; called once the flags are known to be right.
    """
    parse = functools.partial(parse_flags, name, flags.FLAGS)
    app.run(lambda argv: work(name, kind, flags.FLAGS), flags_parser=parse)


def parse_flags(name: str, values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Parse the arguments, the first of which is the program; that first one."""
    try:
        rest = values(argv)
    except (flags.Error, ValueError) as error:  # absl raises ValueError for --noswitch=value
        fail(name, error, WRONG_USAGE)
    if len(rest) > 1:
        fail(name, ValueError(f"expected flags only, got {rest[1]!r}"), WRONG_USAGE)
    return rest


def work(name: str, kind: Callable[[], Kind], values: flags.FlagValues) -> None:
    """Do what parsed flags say, and print the result."""
    if "verbosity" in values and not values["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # TensorFlow's converter has much to say
    try:
        settings = settings_from_flags(values)
    except ValueError as error:
        fail(name, error, WRONG_USAGE)
    try:
        outcome = run(kind(), settings, say=functools.partial(print, flush=True))
    except (ValueError, OSError, ImportError) as error:
        fail(name, error, FAILED)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(INTERRUPTED)
    if outcome is not None:
        print(result_line(name, settings, outcome), flush=True)


def fail(name: str, error: Exception, status: int) -> NoReturn:
    """Say what is wrong in one line, and exit. `--verbosity=1` shows where it came from."""
    logging.debug("%s", error, exc_info=True)
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"'{error.filename}': {error.strerror}" if error.filename else error.strerror
    sys.stdout.flush()
    print(f"{name}: {' '.join(text.split()) or type(error).__name__}", file=sys.stderr)
    sys.exit(status)


def result_line(name: str, settings: Settings, outcome: Outcome) -> str:
    """The outcome as JSON."""
    files = {"model": outcome.model, "export": outcome.file}
    return json_line(
        settings,
        program=name,
        accuracy={
            "float": outcome.float_accuracy,
            "quantized": outcome.accuracy,
            "exported": outcome.file_accuracy,
        },
        report=outcome.report,
        steps=outcome.steps,
        seconds=outcome.seconds,
        files={kind: path for kind, path in files.items() if path is not None},
        weights_sha256=outcome.weights_sha256,
    )
