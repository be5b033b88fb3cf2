"""Put tables between the marks of a Markdown file, so that its text never goes stale.

<!-- bench:layers-avx2 -->
... replaced ...
<!-- /bench:layers-avx2 -->
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping

_MARKS = re.compile(r"(<!-- bench:([\w-]+) -->\n).*?(<!-- /bench:\2 -->)", re.DOTALL)


def filled(text: str, tables: Mapping[str, str]) -> str:
    """The text with each table between its marks. Marks without a table keep what they hold.

    Raises:
        ValueError: a mark that is not closed, or closed without being opened.
    """
    opened = re.findall(r"<!-- bench:([\w-]+) -->", text)
    closed = re.findall(r"<!-- /bench:([\w-]+) -->", text)
    if opened != closed:
        raise ValueError(f"expected marks of tables in pairs, got {opened} opened, {closed} closed")

    def replace(found: re.Match) -> str:
        start, name, end = found.groups()
        return f"{start}{tables[name]}\n{end}" if name in tables else found[0]

    return _MARKS.sub(replace, text)


def fill(path: pathlib.Path, tables: Mapping[str, str]) -> bool:
    """Write the tables into a file; whether it changed.

    Raises:
        OSError: no such file.
        ValueError: as `filled`, with the name of the file.
    """
    text = path.read_text(encoding="utf-8")
    try:
        new = filled(text, tables)
    except ValueError as error:
        raise ValueError(f"file '{path}': {error}") from None
    if new != text:
        path.write_text(new, encoding="utf-8")
    return new != text
