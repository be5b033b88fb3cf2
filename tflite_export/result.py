"""What an export wrote, as numbers and as a table."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from tflite_export.tables import as_text
from tflite_export.verification.result import Verification
from tflite_export.written import WrittenFile

COLUMNS = ("layer", "op", "bits", "container", "values B", "total B", "why")


@dataclasses.dataclass(frozen=True)
class LayerResult:
    """A quantized layer in a file.

    Args:
        name: path of the layer.
        op: "dense", "conv2d", "depthwise_conv2d" or "embedding".
        bits: mean bits a weight that were learned, dropped channels counted as 0.
        code_bytes: bytes of the kernel's values.
        total_bytes: bytes with scales, bias and header.
        container: "packed", or the stock type that holds the values, such as "INT4".
        note: why it takes more bits than were learned; empty if it does not.
    """

    name: str
    op: str
    bits: float
    code_bytes: int
    total_bytes: int
    container: str
    note: str


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What was written. Printed, it is a table of the layers.

    Args:
        path: of the file.
        file_bytes: size of the file.
        weight_bytes: bytes of the kernels in it: values of quantized ones, and float kernels.
        layers: the quantized layers.
        verification: what was compared with the model; None if that was switched off.
    """

    path: pathlib.Path
    file_bytes: int
    weight_bytes: int
    layers: tuple[LayerResult, ...]
    verification: Verification | None

    @property
    def max_error(self) -> float | None:
        """Largest relative difference from the model, of a layer or of a sample without ties."""
        return None if self.verification is None else self.verification.max_error

    def headline(self) -> str:
        """The file and its sizes in one line."""
        return (
            f"{self.path}: {self.file_bytes:,} bytes, {self.weight_bytes:,} of them kernels; "
            f"{_checked(self.verification)}"
        )

    def summary(self) -> str:
        """A table: for each layer its bits, its container, its bytes, and why."""
        rows = [
            (
                layer.name,
                layer.op,
                f"{layer.bits:.2f}",
                layer.container,
                f"{layer.code_bytes:,}",
                f"{layer.total_bytes:,}",
                layer.note,
            )
            for layer in self.layers
        ]
        return as_text(self.headline(), COLUMNS, rows)

    def __str__(self) -> str:
        return self.summary()


def result_of(
    path: pathlib.Path, written: WrittenFile, checked: Verification | None
) -> ExportResult:
    """The numbers of a file that was written to `path`."""
    layers = []
    for name, layer in written.layers.items():
        stored = written.stored[name]
        bits = float(np.mean(layer.weight.bits))
        sizes = (stored.code_bytes, stored.total_bytes)
        layers.append(LayerResult(name, layer.op, bits, *sizes, stored.container, stored.note))
    weight_bytes = sum(layer.code_bytes for layer in layers) + written.float_bytes
    return ExportResult(path, len(written.data), weight_bytes, tuple(layers), checked)


def _checked(checked: Verification | None) -> str:
    if checked is None:
        return "not verified"
    text = f"verified to {checked.max_error:.1e}"
    if checked.max_code_difference:
        text += f" and {checked.max_code_difference} code of integer outputs"
    return text + (f", {checked.ties} of {checked.codes:,} codes at ties" if checked.ties else "")
