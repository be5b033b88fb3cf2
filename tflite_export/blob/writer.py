"""`PackedLayer` to bytes and back: the only byte layout that the C library knows.

The layout is described in docs/blob_format.md.
"""

from __future__ import annotations

import numpy as np

from kerasbits.packed import (
    FLOAT_BITS,
    FloatGrid,
    Floats,
    Planes,
    PlanesGrid,
    TableGrid,
    Uniform,
    UniformGrid,
)
from tflite_export.blob import header as blob_header
from tflite_export.blob.code_streams import pack_codes
from tflite_export.blob.header import Header, assemble, parse
from tflite_export.blob.reader import layer_of
from tflite_export.layer import OPS, PackedLayer

__all__ = ["PackedLayer", "read_blob", "section_sizes", "write_blob"]

Sections = dict[str, bytes]


def write_blob(layer: PackedLayer) -> bytes:
    """The blob of a layer. The same layer gives the same bytes.

    Raises:
        ValueError: if the layer holds what a blob cannot hold; the message names the layer.
    """
    fields, sections = _geometry(layer)
    for more_fields, more_sections in (_weight(layer), _grid(layer)):
        fields |= more_fields
        sections |= more_sections
    for name in ("bias", "multiplier"):
        value = getattr(layer, name)
        if value is not None and not (name == "multiplier" and np.all(value == 1)):
            sections[name] = _floats(layer, name, value)
    return assemble(fields, sections)


def read_blob(blob: bytes) -> PackedLayer:
    """The layer of a blob (its name is empty: a blob has none).

    Raises:
        ValueError: if anything is not as docs/blob_format.md says; the message tells the byte,
            what was expected and what came.
    """
    return layer_of(*parse(bytes(blob)))


def section_sizes(blob: bytes) -> dict[str, int]:
    """Bytes of each part of a blob: "header", the sections that are present, "alignment"."""
    _, sections = parse(bytes(blob))
    sizes = {"header": blob_header.BYTES} | {name: len(s) for name, s in sections.items()}
    return sizes | {"alignment": len(blob) - sum(sizes.values())}


def _geometry(layer: PackedLayer) -> tuple[Header, Sections]:
    named = isinstance(layer.padding, str)
    pads = ((0, 0), (0, 0)) if named else layer.padding
    fields = {
        "op": OPS.index(layer.op),
        "out_channels": layer.row_count,
        "kernel_h": layer.kernel_size[0],
        "kernel_w": layer.kernel_size[1],
        "in_channels": layer.row_size if layer.op == "embedding" else layer.in_channels,
        "groups": layer.groups,
        "stride_h": layer.strides[0],
        "stride_w": layer.strides[1],
        "dilation_h": layer.dilations[0],
        "dilation_w": layer.dilations[1],
        "input_dilation_h": layer.input_dilations[0],
        "input_dilation_w": layer.input_dilations[1],
        "padding": ("valid", "same").index(layer.padding) if named else 2,
        "pad_top": pads[0][0],
        "pad_bottom": pads[0][1],
        "pad_left": pads[1][0],
        "pad_right": pads[1][1],
        "act_min": layer.act_min,
        "act_max": layer.act_max,
    }
    if layer.op == "embedding":
        fields["axis"] = layer.weight.channel_axis % 2
    return fields, {}


def _weight(layer: PackedLayer) -> tuple[Header, Sections]:
    weight, encoding = layer.weight, layer.weight.encoding
    bits = layer.spread(np.asarray(weight.bits))
    bits = np.broadcast_to(bits, (layer.row_count,)).astype(np.uint8)
    fields, sections = {"weight_bits": int(bits.max())}, {}
    if bits.min() != bits.max() or bits.max() == 0:
        sections["channel_bits"] = bits.tobytes()
    if isinstance(encoding, Floats):
        kept = layer.rows(np.asarray(encoding.values))[bits > 0]
        return fields | {"encoding": 3}, sections | {"codes": _floats(layer, "kernel", kept)}
    sections["codes"] = pack_codes(layer.rows(np.asarray(weight.codes)), bits)
    if isinstance(encoding, Uniform):
        fields["encoding"] = 0
        sections["scale"] = _floats(layer, "scale", _shared(layer, "scale", encoding.scale))
        origin, zero = (_shared(layer, n, getattr(encoding, n)) for n in ("origin", "zero"))
        if np.abs(zero.astype(np.int64)).max() > blob_header.MAX_ZERO:
            raise layer.error(f"zero within +-{blob_header.MAX_ZERO}", encoding.zero)
        return fields, sections | {"offset": _offsets(layer, origin), "zero": _zeros(zero)}
    if isinstance(encoding, Planes):
        fields["encoding"] = 1
        scale = np.asarray(encoding.plane_scale)[: int(bits.max())]
        sections["offset"] = _offsets(layer, _shared(layer, "offset", encoding.offset))
    else:
        fields |= {"encoding": 2, "table_length": len(encoding.levels)}
        scale = encoding.scale
        sections["levels"] = _levels(layer, encoding.levels)
    return fields, sections | {"scale": _floats(layer, "scale", _shared(layer, "scale", scale))}


def _shared(layer: PackedLayer, name: str, values: np.ndarray) -> np.ndarray:
    """Channel parameters as (..., row_count), or (..., 1) where all channels are equal."""
    values = layer.spread(np.atleast_1d(np.asarray(values)))
    if values.shape[-1] not in (1, layer.row_count):
        raise layer.error(f"{name} of 1 or {layer.row_count} channels", values.shape)
    equal = np.array_equal(values, np.broadcast_to(values[..., :1], values.shape))
    return values[..., :1] if equal else values


def _offsets(layer: PackedLayer, values: np.ndarray) -> bytes:
    """Offsets, nothing if all are 0."""
    return _floats(layer, "offset", values) if np.any(values) else b""


def _zeros(values: np.ndarray) -> bytes:
    """Codes of the offset, nothing if all are 0."""
    return values.astype("<i4").tobytes() if np.any(values) else b""


def _grid(layer: PackedLayer) -> tuple[Header, Sections]:
    grid = layer.grid
    if isinstance(grid, FloatGrid):
        return {"input_kind": 0, "input_bits": FLOAT_BITS, **_clip(layer, grid)}, {}
    if not 1 <= grid.bits <= 16:
        raise layer.error("input bits in [1, 16]", grid.bits)
    if isinstance(grid, UniformGrid):
        return _uniform_grid(layer, grid)
    fields = {"input_bits": grid.bits}
    if isinstance(grid, PlanesGrid):
        fields |= {"input_kind": 3, "input_length": len(grid.scales), **_clip(layer, grid)}
        return fields, {"input_borders": _floats(layer, "scales of the input", grid.scales)}
    return _table_grid(layer, grid, fields)


def _clip(layer: PackedLayer, grid: FloatGrid | UniformGrid | PlanesGrid) -> Header:
    if not grid.lo <= grid.hi:
        raise layer.error("lo <= hi of the input", (grid.lo, grid.hi))
    return {"input_lo": grid.lo, "input_hi": grid.hi}


def _uniform_grid(layer, grid: UniformGrid) -> tuple[Header, Sections]:
    if not (0 < np.float32(grid.step) < np.inf and np.isfinite(np.float32(grid.origin))):
        raise layer.error("a positive step and finite origin", (grid.step, grid.origin))
    if abs(grid.zero) > blob_header.MAX_ZERO:
        raise layer.error(f"input zero within +-{blob_header.MAX_ZERO}", grid.zero)
    fields = {
        "input_kind": 1,
        "input_bits": grid.bits,
        **_clip(layer, grid),
        "input_origin": grid.origin,
        "input_step": grid.step,
        "input_zero": grid.zero,
    }
    return fields, {}


def _table_grid(layer, grid: TableGrid, fields: Header) -> tuple[Header, Sections]:
    levels, borders = np.asarray(grid.levels), np.asarray(grid.midpoints)
    count = 2 * len(levels) - 1 if grid.signed else len(levels)
    if levels[0] != 0 or (np.diff(levels.astype(np.int64)) <= 0).any() or count > 2**grid.bits:
        raise layer.error(f"input levels rising from 0, {grid.bits} bits", levels)
    if borders.shape != (len(levels) - 1,) or (np.diff(borders) < 0).any():
        raise layer.error(f"{len(levels) - 1} rising input borders", borders)
    if not (0 < np.float32(grid.unit) < np.inf and np.isfinite(np.float32(grid.scale))):
        raise layer.error("a positive unit and finite scale", (grid.unit, grid.scale))
    fields |= {"input_kind": 2, "input_signed": int(grid.signed), "input_length": len(levels)}
    fields |= {"input_origin": grid.unit, "input_step": grid.scale}
    sections = {"input_levels": _levels(layer, levels)}
    return fields, sections | {"input_borders": _floats(layer, "input borders", borders)}


def _floats(layer: PackedLayer, name: str, values: np.ndarray) -> bytes:
    data = np.ascontiguousarray(values, "<f4")
    if not np.isfinite(data).all():
        raise layer.error(f"finite float32 values of {name}", values)
    return data.tobytes()


def _levels(layer: PackedLayer, levels: np.ndarray) -> bytes:
    data = np.asarray(levels)
    if not 1 <= len(data) <= 65535 or not np.array_equal(data.astype("<i2"), data):
        raise layer.error("1 to 65535 int16 levels", f"{len(data)} levels, {data}")
    return data.astype("<i2").tobytes()
