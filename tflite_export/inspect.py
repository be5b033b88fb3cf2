"""Show what is in an exported file: `python -m tflite_export.inspect FILE`."""

from __future__ import annotations

import json
import sys

from absl import flags

from tflite_export.command_line import UsageError, run
from tflite_export.contents.reading import FileContents, LayerContents, read_contents
from tflite_export.tables import as_text

USAGE = """\
python -m tflite_export.inspect FILE [--json]

Prints the layers of a .tflite file (packed, stock, or any other) or of a .kbits file: operator,
shape and bits of the kernel, what its values are and what holds them, what the input is rounded
to, bytes, and the range of the scales."""

COLUMNS = (
    "layer",
    "op",
    "kernel",
    "bits",
    "values",
    "container",
    "input",
    "values B",
    "total B",
    "scales",
    "uses",
)


def main(argv: list[str]) -> int:
    """Run the program with `argv`, its own name first; the exit status."""
    return run(argv, USAGE, _define, _work)


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_bool("json", False, "Print JSON instead of a table.", flag_values=values)


def _work(values: flags.FlagValues, rest: list[str]) -> None:
    if len(rest) != 1:
        raise UsageError(f"expected one file, got {len(rest)}")
    contents = read_contents(rest[0])
    print(json.dumps(contents.to_dict(), indent=2) if values.json else as_table(contents))


def as_table(contents: FileContents) -> str:
    """The layers as a table under a line of totals."""
    title = (
        f"{contents.path}: {contents.kind}, {contents.file_bytes:,} bytes: "
        f"{contents.code_bytes:,} kernels, {contents.parameter_bytes:,} scales and biases, "
        f"{contents.other_constants:,} other constants, {contents.overhead:,} graph and headers"
    )
    return as_text(title, COLUMNS, [_cells(layer) for layer in contents.layers])


def _cells(layer: LayerContents) -> tuple[str, ...]:
    return (
        layer.name,
        layer.op,
        "x".join(map(str, layer.shape)),
        _bits(layer),
        layer.encoding,
        layer.container,
        layer.grid,
        f"{layer.code_bytes:,}",
        f"{layer.total_bytes:,}",
        _scales(layer),
        str(layer.uses),
    )


def _bits(layer: LayerContents) -> str:
    """`4`, or mean and range: `3.25 (2-8, 1 dropped)`."""
    kept = [width for width in layer.widths if width]
    if len(layer.widths) == 1:
        return str(next(iter(layer.widths)))
    span = f"{min(kept)}" if len(kept) == 1 else f"{min(kept)}-{max(kept)}"
    dropped = f", {layer.widths[0]} dropped" if 0 in layer.widths else ""
    return f"{layer.bits:.2f} ({span}{dropped})"


def _scales(layer: LayerContents) -> str:
    if layer.scales is None:
        return ""
    low, high = layer.scales
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv))
