"""The 128 bytes at the start of a blob (docs/blob_format.md, section "Header")."""

from __future__ import annotations

import struct
import zlib
from typing import Any

BYTES = 128
ALIGNMENT = 8
MAGIC = b"KBIT"
VERSION = 2
MAX_ZERO = 2**24 - 2**16
"""Largest magnitude of a zero code: codes less it are at most 2**24, so exact in float32."""

SECTIONS = (
    "channel_bits",
    "codes",
    "scale",
    "offset",
    "zero",
    "levels",
    "multiplier",
    "bias",
    "input_levels",
    "input_borders",
)

_FIELDS = {
    "magic": "4s",
    "version": "H",
    "op": "B",
    "encoding": "B",
    "crc32": "I",
    "out_channels": "I",
    "in_channels": "I",
    "groups": "I",
    "kernel_h": "H",
    "kernel_w": "H",
    "stride_h": "H",
    "stride_w": "H",
    "dilation_h": "H",
    "dilation_w": "H",
    "input_dilation_h": "H",
    "input_dilation_w": "H",
    "pad_top": "H",
    "pad_bottom": "H",
    "pad_left": "H",
    "pad_right": "H",
    "padding": "B",
    "axis": "B",
    "weight_bits": "B",
    "input_kind": "B",
    "input_bits": "B",
    "input_signed": "B",
    "table_length": "H",
    "input_length": "H",
    "reserved": "H",
    "act_min": "f",
    "act_max": "f",
    "input_lo": "f",
    "input_hi": "f",
    "input_origin": "f",
    "input_step": "f",
    "input_zero": "i",
    **{f"{name}_bytes": "I" for name in SECTIONS},
}
_LAYOUT = struct.Struct("<" + "".join(_FIELDS.values()))
OFFSETS = {
    name: struct.calcsize("<" + "".join(list(_FIELDS.values())[:i]))
    for i, name in enumerate(_FIELDS)
}
"""Byte offset of each field."""

Header = dict[str, Any]


def error(where: int | str, expected: Any, got: Any) -> ValueError:
    """A `ValueError` about a field (by name or offset) of a blob."""
    at = OFFSETS[where] if isinstance(where, str) else where
    name = f" ({where})" if isinstance(where, str) else ""
    return ValueError(f"blob, byte {at}{name}: expected {expected}, got {got}")


def checksum(blob: bytes) -> int:
    """CRC-32 of the blob with its checksum field 0."""
    at = OFFSETS["crc32"]
    return zlib.crc32(blob[at + 4 :], zlib.crc32(b"\0\0\0\0", zlib.crc32(blob[:at])))


def assemble(fields: Header, sections: dict[str, bytes]) -> bytes:
    """Header and sections as the bytes of a blob; empty sections are absent."""
    fields = dict.fromkeys(_FIELDS, 0) | fields | {"magic": MAGIC, "version": VERSION}
    body = bytearray()
    for name in SECTIONS:
        data = sections.get(name, b"")
        if len(data) >= 2**32:
            raise ValueError(f"expected {name} below 4 GiB, got {len(data)} bytes")
        fields[f"{name}_bytes"] = len(data)
        body += data + bytes(-len(data) % ALIGNMENT)
    blob = bytearray(_LAYOUT.pack(*fields.values()) + body)
    struct.pack_into("<I", blob, OFFSETS["crc32"], checksum(blob))
    return bytes(blob)


def parse(blob: bytes) -> tuple[Header, dict[str, bytes]]:
    """Header fields and sections of a blob whose frame is in order.

    Raises:
        ValueError: magic, version, length, checksum, or bytes that should be 0.
    """
    if len(blob) < BYTES:
        raise ValueError(f"blob: expected at least {BYTES} bytes, got {len(blob)}")
    header = dict(zip(_FIELDS, _LAYOUT.unpack_from(blob), strict=True))
    for name, expected in (("magic", MAGIC), ("version", VERSION)):
        if header[name] != expected:
            raise error(name, expected, header[name])
    lengths = {name: header[f"{name}_bytes"] for name in SECTIONS}
    total = BYTES + sum(length + -length % ALIGNMENT for length in lengths.values())
    if total != len(blob):
        raise ValueError(f"blob: expected {total} bytes by its sections, got {len(blob)}")
    if header["crc32"] != checksum(blob):
        raise error("crc32", f"{checksum(blob):#010x}", f"{header['crc32']:#010x}")
    if header["reserved"]:
        raise error("reserved", 0, header["reserved"])
    sections, at = {}, BYTES
    for name, length in lengths.items():
        end = at + length + -length % ALIGNMENT
        if any(blob[at + length : end]):
            raise error(at + length, f"zero bytes behind section {name}", "others")
        if length:
            sections[name] = blob[at : at + length]
        at = end
    return header, sections
