"""What a writer made: a file in memory, and where the layers are in it."""

from __future__ import annotations

import dataclasses

from tflite_export.layer import PackedLayer


@dataclasses.dataclass(frozen=True)
class Stored:
    """How the kernel of a layer is stored in a file.

    Args:
        container: "packed", or the stock type that holds the codes, such as "INT4".
        code_bytes: bytes of the kernel's values.
        total_bytes: bytes with scales, bias and header.
        note: why a wider container was taken than the bits call for; empty if it was not.
    """

    container: str
    code_bytes: int
    total_bytes: int
    note: str = ""


@dataclasses.dataclass(frozen=True)
class WrittenFile:
    """A file in memory.

    Args:
        data: the bytes.
        layers: the quantized layers as written, activation included, by path.
        blobs: the bytes of each in the file; empty if the file has no blobs.
        inputs: for each layer, the indices of the tensors it reads in the file, one a use; in
            files without blobs those that are rounded to its grid already.
        outputs: for each layer, the indices of the tensors it writes, one a use.
        stored: how each kernel is stored.
        float_bytes: bytes of the kernels that stayed float.
    """

    data: bytes
    layers: dict[str, PackedLayer]
    blobs: dict[str, bytes]
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    stored: dict[str, Stored]
    float_bytes: int
