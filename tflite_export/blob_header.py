"""The 256 bytes at the start of a blob (docs/blob_format.md, section "Header")."""

from __future__ import annotations

import struct
import zlib
from typing import Any

BYTES = 256
ALIGNMENT = 64
MAGIC = b"KBIT"
VERSION = 1
MAX_ZERO = 2**24
"""Largest magnitude of a zero code: whole numbers up to here are exact in float32."""

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
    "total_bytes": "I",
    "crc32": "I",
    "out_channels": "I",
    "kernel_h": "I",
    "kernel_w": "I",
    "in_channels": "I",
    "groups": "I",
    "stride_h": "I",
    "stride_w": "I",
    "dilation_h": "I",
    "dilation_w": "I",
    "padding": "I",
    "pad_top": "I",
    "pad_bottom": "I",
    "pad_left": "I",
    "pad_right": "I",
    "act_min": "f",
    "act_max": "f",
    "weight_bits": "B",
    "per_channel": "B",
    "table_length": "H",
    "input_kind": "B",
    "input_bits": "B",
    "input_signed": "B",
    "zero_a": "B",
    "input_lo": "f",
    "input_hi": "f",
    "input_origin": "f",
    "input_step": "f",
    "input_zero": "i",
    "input_length": "H",
    "zero_b": "H",
    **{f"{part}_{i}": "I" for i in range(len(SECTIONS)) for part in ("at", "length")},
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
    for i, name in enumerate(SECTIONS):
        data = sections.get(name, b"")
        if data:
            fields[f"at_{i}"], fields[f"length_{i}"] = BYTES + len(body), len(data)
            body += data + bytes(-len(data) % ALIGNMENT)
    fields["total_bytes"] = BYTES + len(body)
    if fields["total_bytes"] >= 2**32:
        raise ValueError(f"expected a blob below 4 GiB, got {fields['total_bytes']} bytes")
    blob = bytearray(_LAYOUT.pack(*fields.values()).ljust(BYTES, b"\0") + body)
    struct.pack_into("<I", blob, OFFSETS["crc32"], checksum(blob))
    return bytes(blob)


def parse(blob: bytes) -> tuple[Header, dict[str, bytes]]:
    """Header fields and sections of a blob whose frame is in order.

    Raises:
        ValueError: magic, version, length, checksum, or a section outside its place.
    """
    if len(blob) < BYTES:
        raise error("total_bytes", f"at least {BYTES} bytes", len(blob))
    header = dict(zip(_FIELDS, _LAYOUT.unpack_from(blob), strict=True))
    for name, expected in (("magic", MAGIC), ("version", VERSION), ("total_bytes", len(blob))):
        if header[name] != expected:
            raise error(name, expected, header[name])
    if len(blob) % ALIGNMENT:
        raise error("total_bytes", f"a multiple of {ALIGNMENT}", len(blob))
    if header["crc32"] != checksum(blob):
        raise error("crc32", f"{checksum(blob):#010x}", f"{header['crc32']:#010x}")
    if any(blob[_LAYOUT.size : BYTES]) or header["zero_a"] or header["zero_b"]:
        raise error(_LAYOUT.size, "reserved bytes 0", "others")
    sections, end = {}, BYTES
    for i, name in enumerate(SECTIONS):
        at, length = header[f"at_{i}"], header[f"length_{i}"]
        if (at, length) == (0, 0):
            continue
        if at != end or length == 0 or at + length > len(blob):
            raise error(f"at_{i}", f"{name} at {end} within the blob", f"{at}, {length} bytes")
        sections[name] = blob[at : at + length]
        end = at + length + -length % ALIGNMENT
        if any(blob[at + length : end]):
            raise error(at + length, "zero bytes between sections", "others")
    if end != len(blob):
        raise error("total_bytes", f"{end}, the end of the last section", len(blob))
    return header, sections
