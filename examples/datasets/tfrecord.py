"""TFRecord files: a record is its length, a checksum of it, the bytes, a checksum of them."""

from __future__ import annotations

import dataclasses
import pathlib
import struct
from collections.abc import Iterator

import google_crc32c


@dataclasses.dataclass(frozen=True)
class Record:
    """Where a record is.

    Args:
        path: of the file.
        number: of the record in it, from 0.
        start: of its bytes, in bytes.
        length: in bytes.
    """

    path: pathlib.Path
    number: int
    start: int
    length: int

    def __str__(self) -> str:
        return f"file '{self.path}', record {self.number}"

    def read(self) -> bytes:
        """The bytes.

        Raises:
            ValueError: the file is shorter now.
        """
        with self.path.open("rb") as file:
            file.seek(self.start)
            data = file.read(self.length)
        if len(data) != self.length:
            raise ValueError(f"{self}: expected {self.length} bytes, got {len(data)}")
        return data


def records(path: pathlib.Path) -> Iterator[tuple[Record, bytes]]:
    """The records of a file in order, with their bytes; all checksums are checked.

    Raises:
        ValueError: another kind of file, a damaged record, or a file that was cut off.
    """
    left = path.stat().st_size
    number = start = 0
    with path.open("rb") as file:
        while left:
            record = Record(path, number, start + 12, _length(file.read(12), path, number))
            left -= 16 + record.length
            if left < 0:  # found before memory is asked for
                raise ValueError(f"{record}: the file ends {-left} bytes too early; copy it again")
            data = file.read(record.length)
            if file.read(4) != _checksum(data):
                raise ValueError(f"{record}: its checksum does not fit; copy the file again")
            yield record, data
            number, start = number + 1, start + 16 + record.length


def _length(head: bytes, path: pathlib.Path, number: int) -> int:
    if len(head) != 12 or head[8:] != _checksum(head[:8]):
        raise ValueError(
            f"file '{path}', record {number}: expected a record, got a damaged or other file; "
            "TFRecords must not be compressed"
        )
    return struct.unpack("<Q", head[:8])[0]


def _checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted by a constant, as the format wants it."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
