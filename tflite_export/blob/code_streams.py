"""Codes of mixed widths as streams of bits (docs/blob_format.md, section "Codes")."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def _by_width(bits: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Widths above 0 in rising order, each with its channels in rising order."""
    for width in np.unique(bits[bits > 0]):
        yield int(width), np.flatnonzero(bits == width)


def _stream_bytes(count: int) -> int:
    return 8 * -(-count // 64)


def pack_codes(rows: np.ndarray, bits: np.ndarray) -> bytes:
    """Streams of bits of the codes.

    Args:
        rows: (O, K) unsigned codes.
        bits: (O,) width of each row, in bits.

    Returns:
        `sum_b b * 8 * ceil(n_b * K / 64)` bytes, lowest bit first.
    """
    parts = []
    for width, channels in _by_width(bits):
        codes = rows[channels].ravel()
        size = _stream_bytes(codes.size)
        for plane in range(width):
            stream = np.packbits((codes >> plane) & 1, bitorder="little").tobytes()
            parts.append(stream.ljust(size, b"\0"))
    return b"".join(parts)


def unpack_codes(data: bytes, bits: np.ndarray, row_size: int) -> np.ndarray:
    """The inverse of `pack_codes`: (O, K) uint16, 0 where a row has no bits.

    Raises:
        ValueError: if `data` has not the length that the widths call for, or if a bit behind
            the last code of a stream is set.
    """
    expected = sum(w * _stream_bytes(len(c) * row_size) for w, c in _by_width(bits))
    if len(data) != expected:
        raise ValueError(f"expected {expected} bytes of codes, got {len(data)}")
    rows = np.zeros((len(bits), row_size), np.uint16)
    at = 0
    for width, channels in _by_width(bits):
        count = len(channels) * row_size
        size = _stream_bytes(count)
        codes = np.zeros(count, np.uint16)
        for plane in range(width):
            stream = np.frombuffer(data, np.uint8, size, at + plane * size)
            values = np.unpackbits(stream, bitorder="little")
            if values[count:].any():
                raise ValueError(f"expected zero bits behind code {count} of width {width}, got 1")
            codes |= values[:count].astype(np.uint16) << plane
        rows[channels] = codes.reshape(len(channels), row_size)
        at += width * size
    return rows
