"""The networks that are measured."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

from benchmarks.cases import FLOAT, INT8
from benchmarks.folders import NETWORKS


@dataclasses.dataclass(frozen=True)
class Net:
    """A network and our form of it.

    Args:
        key: name in files.
        title: name in tables.
        bits: of its weights; inputs have 8 bits, or 1 where the weights have.
        goals: least speed ratio of our packed file to a reference.
        larq: whether Larq Compute Engine has it.
    """

    key: str
    title: str
    bits: int
    goals: Mapping[str, float]
    larq: bool = False

    @property
    def packed(self) -> pathlib.Path:
        """Our TFLite file."""
        return NETWORKS / f"{self.key}.tflite"

    @property
    def kbits(self) -> pathlib.Path:
        """Our file for the C runtime."""
        return NETWORKS / f"{self.key}.kbits"


_FASTER = {FLOAT: 1.0, INT8: 1.0}

NETS = (
    Net("resnet20", "ResNet-20, 4-bit weights, 32x32x3", 4, _FASTER),
    Net("mobilenet-v2", "small MobileNetV2, 4-bit weights, 32x32x3", 4, _FASTER),
    Net("lenet5", "LeNet-5, 2-bit weights, 28x28x1", 2, _FASTER),
    Net("binary-resnet20", "ResNet-20, binary inside, 32x32x3", 1, {FLOAT: 2.0, INT8: 2.0}, True),
)
