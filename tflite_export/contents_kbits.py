"""The layers of a .kbits file."""

from __future__ import annotations

import collections
import zlib

from tflite_export import kbits_generated as schema
from tflite_export.contents import FileContents, blob_contents

VERSION = 1
_CHECKSUM_SLOT = 6
"""Where the checksum's offset is in the flatbuffer's table of fields."""


def kbits_contents(path: str, data: bytes) -> FileContents:
    """The contents of a .kbits file.

    Raises:
        ValueError: if it is corrupt.
    """
    model = _read(data)
    uses = collections.Counter(int(n.blob) for n in model.nodes if n.op == schema.Op.PACKED)
    layers = []
    for index, blob in enumerate(model.blobs or []):
        name = blob.path.decode() if blob.path else f"(float layer {index})"
        layers.append(blob_contents(name, bytes(blob.data), uses[index]))
    constants = sum(len(t.data) for t in model.tensors if t.data is not None)
    return FileContents(path, "kbits", len(data), tuple(layers), constants)


def _read(data: bytes) -> schema.ModelT:
    """The tree of a file whose version and checksum are right."""
    try:
        root = schema.Model.GetRootAs(data, 0)
        version, expected = root.Version(), root.Checksum()
        at = root._tab.Pos + root._tab.Offset(_CHECKSUM_SLOT)
        found = zlib.crc32(data[:at] + bytes(4) + data[at + 4 :])
        model = schema.ModelT.InitFromObj(root)
        whole = bool(model.tensors and model.nodes)
    except Exception as error:  # the generated reader raises whatever the bytes lead it to
        raise ValueError(f"expected a readable .kbits file, got a corrupt one ({error})") from error
    if version != VERSION:
        raise ValueError(f"expected version {VERSION}, got {version}")
    if found != expected:
        raise ValueError(f"expected checksum {expected:08x}, got {found:08x}: the file is corrupt")
    if not whole:
        raise ValueError("expected tensors and nodes, got none")
    return model
