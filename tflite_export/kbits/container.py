"""Bytes of a .kbits file from and to the objects of its schema. See docs/kbits_format.md."""

from __future__ import annotations

import zlib

import flatbuffers
import numpy as np

from tflite_export import kbits_generated as schema

IDENTIFIER = b"KBMF"
VERSION = 1
BLOB_ALIGNMENT = 64
"""Bytes that blobs are aligned to: a cache line."""

_DATA_ALIGNMENT = 4
_CHECKSUM_SLOT = 6
_PLACEHOLDER = 0xFFFFFFFF


def serialize(model: schema.ModelT) -> bytes:
    """The bytes of a file; version and checksum are filled in. Equal models give equal bytes."""
    model.version, model.checksum = VERSION, _PLACEHOLDER
    builder = flatbuffers.Builder(1 << 16)
    # The generated code ignores force_align, so what has data is packed here.
    originals = schema.TensorT.Pack, schema.BlobT.Pack
    schema.TensorT.Pack, schema.BlobT.Pack = _pack_tensor, _pack_blob
    try:
        builder.Finish(model.Pack(builder), IDENTIFIER)
    finally:
        schema.TensorT.Pack, schema.BlobT.Pack = originals
    return _sealed(bytes(builder.Output()))


def read(data: bytes) -> schema.ModelT:
    """The objects of a file.

    Raises:
        ValueError: if it is no .kbits file, of another version, or corrupt.
    """
    if len(data) < 8 or data[4:8] != IDENTIFIER:
        raise ValueError(f"expected a .kbits file (identifier KBMF), got {data[4:8]!r}")
    try:
        root = schema.Model.GetRootAs(data, 0)
        version, checksum = root.Version(), root.Checksum()
        place = _checksum_at(data)
    except Exception as error:  # the generated reader raises whatever the bytes lead it to
        raise ValueError(f"expected a readable .kbits file, got a corrupt one ({error})") from error
    if version != VERSION:
        raise ValueError(f"expected version {VERSION}, got {version}")
    if place is None:
        raise ValueError("expected a checksum, got none")
    found = _crc(data, place)
    if found != checksum:
        raise ValueError(f"expected checksum {checksum:08x}, got {found:08x}: the file is corrupt")
    try:
        return schema.ModelT.InitFromObj(root)
    except Exception as error:  # as above: a right checksum over wrong offsets
        raise ValueError(f"expected a readable .kbits file, got a corrupt one ({error})") from error


def _checksum_at(data: bytes) -> int | None:
    table = schema.Model.GetRootAs(data, 0)._tab
    offset = table.Offset(_CHECKSUM_SLOT)
    return table.Pos + offset if offset else None


def _crc(data: bytes, at: int) -> int:
    return zlib.crc32(data[at + 4 :], zlib.crc32(bytes(4), zlib.crc32(data[:at])))


def _sealed(data: bytes) -> bytes:
    at = _checksum_at(data)
    return data[:at] + _crc(data, at).to_bytes(4, "little") + data[at + 4 :]


def _pack_tensor(tensor: schema.TensorT, builder: flatbuffers.Builder) -> int:
    data = _pack_bytes(builder, tensor.data, _DATA_ALIGNMENT)
    shape = builder.CreateNumpyVector(np.asarray(tensor.shape, np.int32))
    name = builder.CreateString(tensor.name) if tensor.name else None
    schema.TensorStart(builder)
    schema.TensorAddShape(builder, shape)
    schema.TensorAddType(builder, tensor.type)
    if name is not None:
        schema.TensorAddName(builder, name)
    if data is not None:
        schema.TensorAddData(builder, data)
    return schema.TensorEnd(builder)


def _pack_blob(blob: schema.BlobT, builder: flatbuffers.Builder) -> int:
    data = _pack_bytes(builder, blob.data, BLOB_ALIGNMENT)
    path = builder.CreateString(blob.path) if blob.path else None
    schema.BlobStart(builder)
    if path is not None:
        schema.BlobAddPath(builder, path)
    schema.BlobAddData(builder, data)
    return schema.BlobEnd(builder)


def _pack_bytes(builder: flatbuffers.Builder, data, alignment: int) -> int | None:
    if data is None:
        return None
    raw = np.asarray(data, np.uint8).tobytes()
    builder.StartVector(1, len(raw), alignment)
    builder.head -= len(raw)
    builder.Bytes[builder.head : builder.head + len(raw)] = raw
    return builder.EndVector()
