"""What is in an exported file: its layers with widths, grids and bytes. For any of our files, and
for other TFLite files as far as they have layers."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from kerasbits.packed import (
    FloatGrid,
    Floats,
    InputGrid,
    PlanesGrid,
    Table,
    TableGrid,
    Uniform,
    UniformGrid,
)
from tflite_export.blob.writer import read_blob, section_sizes

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class LayerContents:
    """A layer in a file.

    Args:
        name: path of the layer, or the name of its kernel's tensor.
        op: "dense", "conv2d", "depthwise_conv2d", "embedding", "transpose_conv".
        shape: of the kernel, in the order of the file kind.
        widths: channels of each width in bits; dropped channels have width 0.
        encoding: what the values are, such as "uniform" or "table of 16".
        container: "packed", or the type of the tensor that holds the values.
        grid: what the input is rounded to.
        code_bytes: bytes of the kernel's values.
        parameter_bytes: bytes of scales, offsets, tables and biases.
        total_bytes: both, with header and padding of a blob.
        scales: smallest and largest scale; None without scales.
        uses: how often the graph runs the layer.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    widths: dict[int, int]
    encoding: str
    container: str
    grid: str
    code_bytes: int
    parameter_bytes: int
    total_bytes: int
    scales: Range | None
    uses: int = 1

    @property
    def bits(self) -> float:
        """Mean bits a weight."""
        channels = sum(self.widths.values())
        return sum(width * n for width, n in self.widths.items()) / channels

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        widths = {str(width): n for width, n in self.widths.items()}
        return {**dataclasses.asdict(self), "widths": widths, "bits": self.bits}


@dataclasses.dataclass(frozen=True)
class FileContents:
    """A file.

    Args:
        path: of the file.
        kind: "packed TFLite", "TFLite" or "kbits".
        file_bytes: its size.
        layers: in the order of execution.
        other_constants: bytes of constants that belong to no layer.
    """

    path: str
    kind: str
    file_bytes: int
    layers: tuple[LayerContents, ...]
    other_constants: int

    @property
    def code_bytes(self) -> int:
        """Bytes of all kernels."""
        return sum(layer.code_bytes for layer in self.layers)

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all scales, offsets, tables and biases."""
        return sum(layer.parameter_bytes for layer in self.layers)

    @property
    def overhead(self) -> int:
        """Bytes that are no numbers of the model: graph, names, headers, alignment."""
        return self.file_bytes - self.code_bytes - self.parameter_bytes - self.other_constants

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        totals = ("kind", "file_bytes", "code_bytes", "parameter_bytes", "other_constants")
        return {
            "path": self.path,
            **{name: getattr(self, name) for name in totals},
            "overhead": self.overhead,
            "layers": [layer.to_dict() for layer in self.layers],
        }


def read_contents(path: str | os.PathLike) -> FileContents:
    """The contents of a .tflite or .kbits file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is neither, or corrupt; the message names the file.
    """
    from tflite_export.contents.of_kbits import kbits_contents
    from tflite_export.contents.of_tflite import tflite_contents

    path = pathlib.Path(path)
    data = path.read_bytes()
    try:
        if data[4:8] == b"TFL3":
            return tflite_contents(str(path), data)
        if data[4:8] == b"KBMF":
            return kbits_contents(str(path), data)
        raise ValueError(
            f"expected a .tflite file (identifier TFL3) or a .kbits file (KBMF), got {data[4:8]!r}"
        )
    except ValueError as error:
        raise ValueError(f"file '{path}': {error}") from None


def blob_contents(name: str, blob: bytes, uses: int) -> LayerContents:
    """A packed layer."""
    layer, sizes = read_blob(blob), section_sizes(blob)
    frame = sizes.pop("header") + sizes.pop("alignment")
    codes = sizes.pop("codes", 0)
    encoding, scales = _encoding(layer.weight)
    return LayerContents(
        name=name,
        op=layer.op,
        shape=tuple(map(int, layer.weight.shape)),
        widths=_count(layer.weight.bits),
        encoding=encoding,
        container="packed",
        grid=_grid(layer.grid),
        code_bytes=codes,
        parameter_bytes=sum(sizes.values()),
        total_bytes=frame + codes + sum(sizes.values()),
        scales=scales,
        uses=uses,
    )


def _count(bits: np.ndarray) -> dict[int, int]:
    widths, counts = np.unique(np.asarray(bits), return_counts=True)
    return {int(w): int(n) for w, n in zip(widths, counts, strict=True)}


def _encoding(weight) -> tuple[str, Range | None]:
    encoding = weight.encoding
    if isinstance(encoding, Floats):
        return "float", None
    if isinstance(encoding, Uniform):
        name = "uniform with offset" if np.any(encoding.origin) else "uniform"
        return name, scale_range(encoding.scale)
    if isinstance(encoding, Table):
        return f"table of {len(encoding.levels)}", scale_range(encoding.scale)
    return f"{len(encoding.plane_scale)} planes", scale_range(encoding.plane_scale)


def scale_range(scale: np.ndarray) -> Range | None:
    """Smallest and largest of some scales."""
    scale = np.asarray(scale)
    return (float(scale.min()), float(scale.max())) if scale.size else None


def _grid(grid: InputGrid) -> str:
    if isinstance(grid, FloatGrid):
        clipped = np.isfinite(grid.lo) or np.isfinite(grid.hi)
        return f"float in [{grid.lo:.4g}, {grid.hi:.4g}]" if clipped else "float"
    if isinstance(grid, UniformGrid):
        return f"{grid.bits} bit in [{grid.lo:.4g}, {grid.hi:.4g}]"
    if isinstance(grid, TableGrid):
        sign = "signed " if grid.signed else ""
        return f"{grid.bits} bit {sign}table to {grid.unit:.4g}"
    assert isinstance(grid, PlanesGrid)
    return f"{grid.bits} bit of signs"
