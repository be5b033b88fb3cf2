"""Rows as a table of text."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Sequence

NO_TERMINAL = 140
"""Columns of a table that is not printed to a terminal."""


def as_text(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table under its title; columns of numbers stand to the right.

    Columns that are empty in every row are left out.
    """
    from rich.console import Console
    from rich.table import Table

    shown = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    table = Table()
    for i in shown:
        numbers = all(_is_number(row[i]) for row in rows)
        table.add_column(columns[i], justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(row[i] for i in shown))
    text = io.StringIO()
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else NO_TERMINAL
    Console(file=text, width=width, markup=False, highlight=False).print(table)
    return "\n".join([title, *(line.rstrip() for line in text.getvalue().splitlines())])


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "") or "0")
    except ValueError:
        return False
    return True
