"""What is measured: shapes, widths of weights and inputs, and the speed we aim for.

The goals are those of the project, set for one core with AVX2: how many times as fast as XNNPACK's
int8 kernel on the same shape.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

import kerasbits as kb
from benchmarks.folders import BLOBS

INT8 = "XNNPACK int8"
FLOAT = "XNNPACK float32"
LARQ = "Larq Compute Engine"
PACKED = "kerasbits, packed .tflite"
KBITS = "kerasbits, .kbits"


@dataclasses.dataclass(frozen=True)
class Shape:
    """A layer without its quantizers.

    Args:
        kind: "conv" (3x3, SAME), "depthwise" (3x3, SAME) or "dense".
        channels: of input and output.
        size: rows and columns of the image; 1 for dense.
        stride: of both.
    """

    kind: str
    channels: int
    size: int = 1
    stride: int = 1

    @property
    def key(self) -> str:
        """Name in files."""
        stride = f"-s{self.stride}" if self.stride > 1 else ""
        return f"{self.kind}-{self.channels}-{self.size}{stride}"

    @property
    def title(self) -> str:
        """Name in tables."""
        if self.kind == "dense":
            return f"dense {self.channels}x{self.channels}, batch 1"
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        kind = "depthwise 3x3" if self.kind == "depthwise" else "conv 3x3"
        return f"{kind}, {self.channels} channels, {self.size}x{self.size}{stride}"

    @property
    def input(self) -> tuple[int, ...]:
        """Shape of an input with a batch axis."""
        if self.kind == "dense":
            return (1, self.channels)
        return (1, self.size, self.size, self.channels)

    @property
    def macs(self) -> int:
        """Multiplications of weights and inputs, those with padding too."""
        if self.kind == "dense":
            return self.channels**2
        pixels = (-(-self.size // self.stride)) ** 2
        return 9 * pixels * self.channels * (self.channels if self.kind == "conv" else 1)


@dataclasses.dataclass(frozen=True)
class Kind:
    """Quantizers of a layer.

    Args:
        name: bits of weights x bits of inputs.
        kernel, inputs: the quantizers.
        goals: least speed ratio to a reference.
        roof: the idea of roofline.c behind its kernel, for each instruction set.
        passes: how often that kernel runs over the layer: once for each pair of bit planes.
    """

    name: str
    kernel: kb.Quantizer
    inputs: kb.Quantizer
    goals: Mapping[str, float]
    roof: Mapping[str, str] = dataclasses.field(default_factory=dict)
    passes: int = 1


_LS1, _LS2 = kb.LeastSquaresBinary("ls1"), kb.LeastSquaresBinary("ls2")
_LST, _EIGHT = kb.LeastSquaresBinary("lst"), kb.Uniform(8)

BITS = {"avx2": "vpshufb of chosen tables", "avx512": "vpternlogq carry + vpopcntq"}
NARROW = {"avx2": "vpmaddubsw, 16-bit sums", "avx512": "vpdpbusd"}
WIDE = {"avx512": "vpdpbusd"}

CONVOLUTIONS = (
    Kind("1 x 1", _LS1, _LS1, {INT8: 6.0, LARQ: 4.0}, BITS),
    Kind("1 x 2", _LS1, _LS2, {INT8: 3.0}, BITS, 2),
    Kind("2 x 2", _LS2, _LS2, {INT8: 2.0}, BITS, 4),
    Kind("1 x 8", _LS1, _EIGHT, {INT8: 2.5}, NARROW),
    Kind("2 x 8", kb.Uniform(2), _EIGHT, {INT8: 2.2}, NARROW),
    Kind("ternary x 8", _LST, _EIGHT, {INT8: 2.2}, NARROW),
    Kind("3 x 8", kb.Uniform(3), _EIGHT, {INT8: 1.4}, NARROW),
    Kind("4 x 8", kb.Uniform(4), _EIGHT, {INT8: 1.4}, NARROW),
    Kind("4 x 4", kb.Uniform(4), kb.Uniform(4), {INT8: 1.4}, NARROW),
    Kind("APoT-4 x 8", kb.APoT(4), _EIGHT, {INT8: 1.4}, NARROW),
    Kind("APoT-4 x APoT-4", kb.APoT(4), kb.APoT(4), {INT8: 1.4}, NARROW),
    Kind("5 x 8", kb.Uniform(5), _EIGHT, {INT8: 1.3}, NARROW),
    Kind("6 x 8", kb.Uniform(6), _EIGHT, {INT8: 1.3}, NARROW),
    Kind("7 x 8", kb.Uniform(7), _EIGHT, {INT8: 1.3}, WIDE),
    Kind("8 x 8", kb.Uniform(8), _EIGHT, {INT8: 1.0}, WIDE),
)
DENSE = (
    Kind("1 x 8", _LS1, _EIGHT, {INT8: 5.0}),
    Kind("2 x 8", kb.Uniform(2), _EIGHT, {INT8: 3.0}),
    Kind("4 x 8", kb.Uniform(4), _EIGHT, {INT8: 1.7}),
    Kind("8 x 8", kb.Uniform(8), _EIGHT, {INT8: 1.0}),
)
DEPTHWISE = (
    Kind("4 x 8", kb.Uniform(4), _EIGHT, {INT8: 1.0}),
    Kind("8 x 8", kb.Uniform(8), _EIGHT, {INT8: 1.0}),
)

KINDS = {"conv": CONVOLUTIONS, "dense": DENSE, "depthwise": DEPTHWISE}

SHAPES = (
    Shape("conv", 64, 56),
    Shape("conv", 128, 28),
    Shape("conv", 256, 14),
    Shape("conv", 512, 7),
    Shape("dense", 4096),
    Shape("depthwise", 32, 112),
    Shape("depthwise", 96, 112, 2),
    Shape("depthwise", 144, 56),
    Shape("depthwise", 384, 14),
    Shape("depthwise", 960, 7),
)
"""Convolutions of ResNets and depthwise ones of MobileNetV2, all but the dense one."""


def blob_name(kind: Kind) -> str:
    """Name of a packed layer among those of its shape."""
    return kind.name.replace(" ", "") + ".kbit"


THREADED = ("1 x 1", "4 x 8", "8 x 8")
"""Convolutions that are measured with two threads, in TFLite files of one layer."""


def packed_file(shape: Shape, name: str) -> pathlib.Path:
    """The TFLite file of a layer of ours, by the name of its kind."""
    return BLOBS / shape.key / (name.replace(" ", "") + ".tflite")
