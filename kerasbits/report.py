"""What a model costs: bits, bytes, multiply-accumulates and bit operations, layer by layer."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import json
import pathlib
from typing import Any

import numpy as np
from keras import ops

from kerasbits import sites
from kerasbits.bops import LayerCost
from kerasbits.bops import bops as count_bops
from kerasbits.packed import FLOAT_BITS, code_bytes


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer.

    Args:
        name: path of the layer.
        layer: class of the layer.
        method: quantizer of the kernel, "float" if none.
        input_method: quantizer of the input, "float" if none.
        shape: of the kernel.
        weights: number of weights in the kernel.
        bits: mean bits a weight, dropped channels counted as 0.
        input_bits: bits of the input, 32 if float.
        dropped_channels: output channels of 0 bits.
        macs: multiply-accumulates a sample; 0 for float layers, whose cost is not traced.
        bops: `macs * bits * input_bits`.
        bytes: of the kernel in a packed file (codes only; exact once frozen).
    """

    name: str
    layer: str
    method: str
    input_method: str
    shape: tuple[int, ...]
    weights: int
    bits: float
    input_bits: float
    dropped_channels: int
    macs: int
    bops: float
    bytes: int


@dataclasses.dataclass(frozen=True)
class Report:
    """Costs of a model. `weight_bytes` of a frozen model are the bytes in a packed file."""

    rows: tuple[Row, ...]

    @property
    def weights(self) -> int:
        """Number of weights in all kernels."""
        return sum(row.weights for row in self.rows)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all kernels in a packed file; float kernels take 4 bytes a weight."""
        return sum(row.bytes for row in self.rows)

    @property
    def float_bytes(self) -> int:
        """Bytes of all kernels as float32."""
        return 4 * self.weights

    @property
    def average_bits(self) -> float:
        """Mean bits over the weights of the quantized layers; 32 if there are none."""
        rows = [row for row in self.rows if row.method != "float"]
        total = sum(row.weights for row in rows)
        return sum(row.bits * row.weights for row in rows) / total if total else float(FLOAT_BITS)

    @property
    def bops(self) -> float:
        """Bit operations a sample of the quantized layers."""
        return sum(row.bops for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Totals and rows as plain values."""
        return {
            "weights": self.weights,
            "weight_bytes": self.weight_bytes,
            "float_bytes": self.float_bytes,
            "average_bits": self.average_bits,
            "bops": self.bops,
            "rows": [dataclasses.asdict(row) for row in self.rows],
        }

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_csv(self) -> str:
        """The rows as comma-separated values with a header line."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([field.name for field in dataclasses.fields(Row)])
        for row in self.rows:
            values = dataclasses.astuple(row)
            writer.writerow("x".join(map(str, v)) if isinstance(v, tuple) else v for v in values)
        return text.getvalue()

    def to_html(self, path: str | pathlib.Path) -> None:
        """Write the table as one self-contained HTML page."""
        head = "".join(f"<th>{html.escape(c)}</th>" for c in COLUMNS)
        body = "\n".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells(row)) + "</tr>"
            for row in self.rows
        )
        pathlib.Path(path).write_text(
            "<!doctype html><meta charset='utf-8'><title>kerasbits report</title>"
            "<style>body{font:15px sans-serif;margin:2em}table{border-collapse:collapse}"
            "td,th{padding:.3em .8em;border-bottom:1px solid #ccc;text-align:right}"
            "td:first-child,th:first-child{text-align:left}</style>"
            f"<h1>{html.escape(self.headline())}</h1>"
            f"<table><tr>{head}</tr>\n{body}\n</table>\n",
            encoding="utf-8",
        )

    def headline(self) -> str:
        """The totals in one line."""
        kib, float_kib = self.weight_bytes / 1024, self.float_bytes / 1024
        sizes = f"{kib:.1f} KiB of weights ({float_kib:.1f} as float)"
        return f"{self.average_bits:.2f} bits on average, {sizes}, {self.bops / 1e6:.1f} MBOPs"


COLUMNS = (
    "layer",
    "kernel",
    "method",
    "weights",
    "bits",
    "dropped",
    "input",
    "input bits",
    "MMAC",
    "KiB",
)

FILE_WIDTH = 160
"""Columns of a summary that is not printed to a terminal."""


def cells(row: Row) -> tuple[str, ...]:
    """The texts of one row, in the order of `COLUMNS`."""
    return (
        row.name,
        "x".join(map(str, row.shape)),
        row.method,
        f"{row.weights:,}",
        f"{row.bits:.2f}",
        str(row.dropped_channels),
        row.input_method,
        f"{row.input_bits:.2f}",
        f"{row.macs / 1e6:.3f}",
        f"{row.bytes / 1024:.2f}",
    )


def report(model, frozen: bool = False) -> Report:
    """Costs of a model of any host, as it stands: real bits while training, whole once frozen.

    Args:
        model: of any host.
        frozen: as `freeze` would leave it now. The model itself stays as it is.

    Raises:
        ValueError: `frozen` of a model with NaN or infinity in a quantizer, naming the layer.
    """
    rows = []
    for path, layer in sites.walk(model):
        if getattr(layer, "hosts", None):
            rows.append(_quantized_row(path, layer, frozen))
        elif kernels := [w for w in layer.weights if _is_kernel(w)]:
            rows.append(_float_row(path, layer, kernels))
    return Report(tuple(rows))


def _is_kernel(weight) -> bool:
    """Whether a weight counts. A bias may have several axes, too (`EinsumDense`)."""
    name = weight.name.rpartition("/")[2].removesuffix(":0")  # tf_keras numbers outputs
    return len(weight.shape) >= 2 and name != "bias"


def summary(model) -> None:
    """Print the report as a table."""
    from rich.console import Console
    from rich.table import Table

    result = report(model)
    table = Table(title=result.headline(), title_justify="left")
    for column in COLUMNS:
        side = "left" if column in COLUMNS[:3] else "right"
        table.add_column(column, justify=side, overflow="fold")
    for row in result.rows:
        table.add_row(*cells(row))
    console = Console()
    if not console.is_terminal:  # files and pipes have no width of their own
        console.width = max(console.width, FILE_WIDTH)
    console.print(table)


def _quantized_row(path: str, layer, frozen: bool) -> Row:
    kernel, source = layer.hosts.get("kernel"), layer.hosts.get("input")
    shape = tuple(layer.kernel.shape)
    weights = int(np.prod(shape))
    macs = (kernel or source).site.macs
    bits = np.full(1, float(FLOAT_BITS)) if kernel is None else _bits(kernel, frozen)
    input_bits = float(FLOAT_BITS) if source is None else float(np.mean(_bits(source, frozen)))
    cost = LayerCost(macs=macs, weight_bits=float(bits.mean()), input_bits=input_bits)
    channels = 1 if kernel is None else kernel.site.channels
    per_channel = np.broadcast_to(bits, (channels,))
    return Row(
        path,
        getattr(layer, "quantized_as", type(layer).__name__),
        _method(kernel),
        _method(source),
        shape,
        weights,
        float(bits.mean()),
        input_bits,
        int((per_channel == 0).sum()),
        macs,
        float(count_bops([cost])),
        _bytes(per_channel, weights),
    )


def _float_row(path: str, layer, kernels) -> Row:
    weights = sum(int(np.prod(w.shape)) for w in kernels)
    shape = tuple(kernels[0].shape)
    return Row(
        path,
        type(layer).__name__,
        "float",
        "float",
        shape,
        weights,
        float(FLOAT_BITS),
        float(FLOAT_BITS),
        0,
        0,
        0.0,
        4 * weights,
    )


def _bits(host, frozen: bool) -> np.ndarray:
    state = host.state()
    if frozen:
        state = {**state, **host.quantizer.freeze(sites.finite_state(host), host.site)}
    bits = ops.convert_to_numpy(host.quantizer.widths(state, host.site))
    return np.atleast_1d(np.asarray(bits, np.float64))


def _bytes(bits: np.ndarray, weights: int) -> int:
    size = weights // len(bits)
    if np.all(bits == np.round(bits)):
        return code_bytes(bits.astype(int), size)
    return round(float(bits.sum()) * size / 8)


def _method(host) -> str:
    return "float" if host is None else type(host.quantizer).__name__
