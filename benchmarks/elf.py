"""Local symbols of a shared library: the addresses of names in an ELF file."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Collection

_SYMTAB = 2
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")


def symbols(path: pathlib.Path, wanted: Collection[str]) -> dict[str, tuple[int, int]]:
    """Address and size of each of the names that the symbol table of a 64-bit ELF file has.

    A library that was stripped has no such table: the result is empty then.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no little-endian 64-bit ELF file, or its tables lie outside of it.
    """
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"file '{path}': expected a 64-bit ELF file, got {data[:6]!r}")
    try:
        return _symbols(data, {name.encode() for name in wanted})
    except (struct.error, IndexError, ValueError) as error:
        raise ValueError(
            f"file '{path}': expected whole tables, got broken ones ({error})"
        ) from None


def _symbols(data: bytes, wanted: set[bytes]) -> dict[str, tuple[int, int]]:
    start = struct.unpack_from("<Q", data, 0x28)[0]
    size, count = struct.unpack_from("<HH", data, 0x3A)
    sections = [_SECTION.unpack_from(data, start + i * size) for i in range(count)]
    found = {}
    for section in sections:
        kind, offset, length, link = section[1], section[4], section[5], section[6]
        if kind != _SYMTAB:
            continue
        names = sections[link][4]
        for at in range(offset, offset + length, _SYMBOL.size):
            name_at, _, _, _, address, bytes_of_it = _SYMBOL.unpack_from(data, at)
            end = data.index(b"\0", names + name_at)
            name = data[names + name_at : end]
            if name in wanted:
                found[name.decode()] = address, bytes_of_it
    return found
