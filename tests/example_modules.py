"""Modules of the examples, which import each other as programs in their folder do."""

import importlib
import pathlib

import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


def example(name):
    """The module `name` of the folder `examples`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        return importlib.import_module(name)
