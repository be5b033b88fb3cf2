"""The layers of a .kbits file."""

from __future__ import annotations

import collections

import numpy as np

from tflite_export.contents.reading import FileContents, blob_contents
from tflite_export.kbits import container
from tflite_export.kbits_generated import Op


def kbits_contents(path: str, data: bytes) -> FileContents:
    """The contents of a .kbits file.

    Raises:
        ValueError: if it is corrupt.
    """
    model = container.read(data)
    uses = collections.Counter(int(n.blob) for n in model.nodes or [] if n.op == Op.PACKED)
    layers = []
    for index, (name, blob) in enumerate(kbits_blobs(model)):
        layers.append(blob_contents(name or f"(float layer {index})", blob, uses[index]))
    constants = sum(len(t.data) for t in model.tensors or [] if t.data is not None)
    return FileContents(path, "kbits", len(data), tuple(layers), constants)


def kbits_blobs(model) -> list[tuple[str, bytes]]:
    """Path and bytes of each blob of a .kbits file; layers that stayed float have no path."""
    blobs = []
    for blob in model.blobs or []:
        data = b"" if blob.data is None else np.asarray(blob.data, np.uint8).tobytes()
        blobs.append((blob.path.decode() if blob.path else "", data))
    return blobs
