"""Header fields and sections of a blob to a `PackedLayer`, checking everything."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from kerasbits.packed import (
    FLOAT_BITS,
    FloatGrid,
    Floats,
    InputGrid,
    PackedTensor,
    Planes,
    PlanesGrid,
    Table,
    TableGrid,
    Uniform,
    UniformGrid,
    frozen_copy,
)
from tflite_export.blob.code_streams import unpack_codes
from tflite_export.blob.header import MAX_ZERO, Header, error
from tflite_export.layer import OPS, PackedLayer

Sections = dict[str, bytes]

_MAX_COUNT = 2**31 - 1
_MAX_WINDOW = 2**16 - 1


class _Reader:
    """Takes sections by name and expected size; `done` refuses those nobody asked for."""

    def __init__(self, header: Header, sections: Sections):
        self.header, self.sections, self.left = header, sections, set(sections)

    def array(self, name: str, dtype: str, count: int) -> np.ndarray:
        self.left.discard(name)
        values = np.frombuffer(self.sections.get(name, b""), np.uint8)
        expected = count * np.dtype(dtype).itemsize
        if len(values) != expected:
            raise ValueError(f"blob, section {name}: expected {expected} bytes, got {len(values)}")
        values = frozen_copy(values.view(dtype), np.dtype(dtype).newbyteorder("="))
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(f"blob, section {name}: expected finite values, got {values}")
        return values

    def per_channel(self, name: str, dtype: str, rows: int, out: int) -> np.ndarray:
        """(rows, 1) or (rows, out) parameters; the length of the section tells which."""
        shared = len(self.sections.get(name, b"")) == rows * np.dtype(dtype).itemsize
        width = 1 if shared else out
        return self.array(name, dtype, rows * width).reshape(rows, width)

    def offset(self, name: str, dtype: str, out: int) -> np.ndarray:
        """(1,) or (out,) parameters, (1,) zeros if the section is absent."""
        if name not in self.sections:
            return frozen_copy(np.zeros(1), np.dtype(dtype).newbyteorder("="))
        return self.per_channel(name, dtype, 1, out)[0]

    def field(self, name: str, low, high):
        value = self.header[name]
        if not low <= value <= high:
            raise error(name, f"a number in [{low}, {high}]", value)
        return value

    def done(self):
        if self.left:
            raise ValueError(f"blob: expected no section {sorted(self.left)} here, got one")


def layer_of(header: Header, sections: Sections) -> PackedLayer:
    """The layer, or a `ValueError` about the first thing that is wrong."""
    reader = _Reader(header, sections)
    op = OPS[reader.field("op", 0, len(OPS) - 1)]
    out, row, groups = _counts(reader, op)
    reader.field("axis", 0, int(op == "embedding"))
    window = _window(reader, op)
    weight = _weight(reader, op, _keras_shape(header, op), (out, row))
    grid = _grid(reader)
    optional = {
        name: reader.array(name, "<f4", out) if name in sections else None
        for name in ("bias", "multiplier")
    }
    if not header["act_min"] <= header["act_max"]:
        raise error("act_min", f"at most act_max {header['act_max']}", header["act_min"])
    reader.done()
    if op == "embedding":
        _check_embedding(grid, header, optional)
    clamp = {"act_min": header["act_min"], "act_max": header["act_max"]}
    return PackedLayer(op, weight, grid, groups=groups, **optional, **window, **clamp)


def _counts(reader: _Reader, op: str) -> tuple[int, int, int]:
    """Rows, elements of a row, groups."""
    windowed = op in ("conv2d", "depthwise_conv2d")
    limit = _MAX_WINDOW if windowed else 1
    kernel = [reader.field(name, 1, limit) for name in ("kernel_h", "kernel_w")]
    out = reader.field("out_channels", 1, _MAX_COUNT)
    in_channels = reader.field("in_channels", 1, 1 if op == "depthwise_conv2d" else _MAX_COUNT)
    groups = reader.field("groups", 1, out if windowed else 1)
    row = math.prod(kernel) * in_channels
    if row * out > _MAX_COUNT or out % groups:
        raise error("out_channels", f"groups | O and O * K <= {_MAX_COUNT}", f"{out}, {row}")
    return out, row, groups


def _keras_shape(header: Header, op: str) -> tuple[int, ...]:
    """Shape of the kernel; of an embedding as [channels, elements of one]."""
    out, in_channels, groups = (header[n] for n in ("out_channels", "in_channels", "groups"))
    kernel = (header["kernel_h"], header["kernel_w"])
    shapes = {
        "dense": (in_channels, out),
        "conv2d": (*kernel, in_channels, out),
        "depthwise_conv2d": (*kernel, groups, out // groups),
        "embedding": (out, in_channels),
    }
    return shapes[op]


def _check_embedding(grid: InputGrid, header: Header, optional: dict[str, Any]):
    if grid != FloatGrid():
        raise error("input_kind", "a float input without clip for an embedding", grid)
    if (header["act_min"], header["act_max"]) != (-math.inf, math.inf):
        raise error("act_min", "no clamp for an embedding", header["act_min"])
    for name, values in optional.items():
        if values is not None:
            raise ValueError(f"blob, section {name}: expected none for an embedding, got one")


def _window(reader: _Reader, op: str) -> dict[str, Any]:
    kind = reader.field("padding", 0, 2 if op in ("conv2d", "depthwise_conv2d") else 0)
    window = {}
    for name in ("stride", "dilation", "input_dilation"):
        limit = _MAX_WINDOW if op in ("conv2d", "depthwise_conv2d") else 1
        if name == "input_dilation" and kind == 1:
            limit = 1
        window[f"{name}s"] = tuple(reader.field(f"{name}_{a}", 1, limit) for a in "hw")
    names = ("pad_top", "pad_bottom", "pad_left", "pad_right")
    limit = _MAX_WINDOW if kind == 2 else 0
    top, bottom, left, right = (reader.field(n, 0, limit) for n in names)
    return window | {"padding": ("valid", "same", ((top, bottom), (left, right)))[kind]}


def _weight(reader: _Reader, op: str, shape: tuple[int, ...], size: tuple[int, int]):
    out, row = size
    kind = reader.field("encoding", 0, 3)
    widest = reader.field("weight_bits", 0, FLOAT_BITS if kind == 3 else 16)
    bits = _channel_bits(reader, widest, out)
    if kind != 2:
        reader.field("table_length", 0, 0)
    if kind == 3:
        rows, encoding = _float_rows(reader, bits, row), None
        return _in_keras_order(reader, op, shape, rows, bits, encoding)
    if kind != 0 and len(np.unique(bits[bits > 0])) > 1:
        raise ValueError(f"blob, section channel_bits: expected one width, got {bits}")
    reader.left.discard("codes")
    rows = unpack_codes(reader.sections.get("codes", b""), bits, row)
    encoding = _encoding(reader, kind, out, widest)
    if kind == 2 and rows.max(initial=0) >= len(encoding.levels):
        raise ValueError(
            f"blob, section codes: expected < {len(encoding.levels)}, got {rows.max()}"
        )
    return _in_keras_order(reader, op, shape, rows, bits, encoding)


def _channel_bits(reader: _Reader, widest: int, out: int) -> np.ndarray:
    if widest and "channel_bits" not in reader.sections:
        codes = len(reader.sections.get("codes", b""))
        if out > 8 * codes:  # before an array of that size is made
            raise error("out_channels", f"at most the {8 * codes} bits of the codes", out)
        return np.full(out, widest, np.int32)
    bits = reader.array("channel_bits", "u1", out).astype(np.int32)
    if bits.max() != widest:
        raise error("weight_bits", f"{bits.max()}, the widest channel", widest)
    return bits


def _float_rows(reader: _Reader, bits: np.ndarray, row: int) -> np.ndarray:
    if not np.isin(bits, (0, FLOAT_BITS)).all():
        raise ValueError(f"blob, section channel_bits: expected 0 or {FLOAT_BITS}, got {bits}")
    kept = bits > 0
    values = reader.array("codes", "<f4", int(kept.sum()) * row)
    rows = np.zeros((len(bits), row), np.float32)
    rows[kept] = values.reshape(-1, row)
    return rows


def _in_keras_order(reader, op, shape, rows, bits, encoding) -> PackedTensor:
    """Rows as a kernel. Without an encoding they are floats."""
    if op == "depthwise_conv2d":
        return _depthwise(rows, shape, bits, encoding)
    axis = len(shape) - 1
    if op == "embedding":
        axis = reader.header["axis"]
        stored = rows if axis == 0 else rows.T
    else:
        stored = rows.T.reshape(shape)
    return _tensor(stored, bits, axis, encoding)


def _tensor(stored: np.ndarray, bits: np.ndarray, axis: int, encoding) -> PackedTensor:
    if encoding is None:
        floats = Floats(frozen_copy(stored, np.float32))
        return PackedTensor("", np.zeros(0, np.uint16), bits, axis, floats)
    return PackedTensor("", frozen_copy(stored, np.uint16), bits, axis, encoding)


def _encoding(reader: _Reader, kind: int, out: int, planes: int) -> Uniform | Planes | Table:
    if kind == 1:
        scale = reader.per_channel("scale", "<f4", planes, out)
        return Planes(scale, reader.offset("offset", "<f4", out))
    scale = reader.per_channel("scale", "<f4", 1, out)[0]
    if kind == 2:
        return Table(reader.array("levels", "<i2", reader.field("table_length", 1, 65535)), scale)
    zero = reader.offset("zero", "<i4", out)
    if np.abs(zero.astype(np.int64)).max() > MAX_ZERO:
        raise ValueError(f"blob, section zero: expected within +-{MAX_ZERO}, got {zero}")
    return Uniform(scale, zero, reader.offset("offset", "<f4", out))


def _depthwise(rows: np.ndarray, shape, bits: np.ndarray, encoding) -> PackedTensor:
    names = [f.name for f in dataclasses.fields(encoding)] if encoding else []
    parts = {name: getattr(encoding, name) for name in names if name != "levels"}
    wide = {name: p for name, p in parts.items() if p.shape[-1] == len(bits)}
    axis, pick, shape = _depthwise_axis([bits, *wide.values()], shape)
    if wide:
        encoding = dataclasses.replace(encoding, **{n: p[..., pick] for n, p in wide.items()})
    return _tensor(rows.T.reshape(shape), bits[pick], axis, encoding)


def _depthwise_axis(parts: list[np.ndarray], shape) -> tuple[int, np.ndarray, tuple[int, ...]]:
    """The first channel axis that (..., O) parameters allow, their channels, and the shape.

    They may be equal over the depth multiplier (axis 2), or over the input channels (axis 3);
    else the kernel is `[kh, kw, out]`.
    """
    out, multiplier = shape[2] * shape[3], shape[3]
    first = np.arange(out)
    for axis, index in ((2, first // multiplier * multiplier), (3, first % multiplier)):
        if all(np.array_equal(p, p[..., index]) for p in parts):
            return axis, np.unique(index), shape
    return 2, first, (*shape[:2], out)


def _grid(reader: _Reader) -> InputGrid:
    header, kind = reader.header, reader.field("input_kind", 0, 3)
    reader.field("input_signed", 0, 1 if kind == 2 else 0)
    bits = FLOAT_BITS if kind == 0 else reader.field("input_bits", 1, 16)
    reader.field("input_bits", bits, bits)
    if kind < 2:
        reader.field("input_length", 0, 0)
        return _clipped_grid(reader, bits)
    if kind == 3:
        count = reader.field("input_length", bits, bits)
        return PlanesGrid(reader.array("input_borders", "<f4", count), *_clip(reader))
    signed, count = bool(header["input_signed"]), reader.field("input_length", 1, 65535)
    levels = reader.array("input_levels", "<i2", count)
    borders = reader.array("input_borders", "<f4", count - 1)
    if levels[0] != 0 or (np.diff(levels.astype(np.int32)) <= 0).any():
        raise ValueError(f"blob, section input_levels: expected rising from 0, got {levels}")
    if (np.diff(borders) < 0).any():
        raise ValueError(f"blob, section input_borders: expected rising, got {borders}")
    if (2 * count - 1 if signed else count) > 2**bits:
        raise error("input_length", f"at most {2**bits} codes", count)
    unit, scale = _positive(reader, "input_origin"), _finite(reader, "input_step")
    return TableGrid(bits, signed, levels, borders, unit, scale)


def _clip(reader: _Reader) -> tuple[float, float]:
    lo, hi = reader.header["input_lo"], reader.header["input_hi"]
    if not lo <= hi:
        raise error("input_lo", f"at most input_hi {hi}", lo)
    return lo, hi


def _clipped_grid(reader: _Reader, bits: int) -> FloatGrid | UniformGrid:
    lo, hi = _clip(reader)
    if bits == FLOAT_BITS:
        return FloatGrid(lo, hi)
    origin, step = _finite(reader, "input_origin"), _positive(reader, "input_step")
    return UniformGrid(bits, lo, hi, origin, step, reader.field("input_zero", -MAX_ZERO, MAX_ZERO))


def _finite(reader: _Reader, name: str) -> float:
    if not math.isfinite(reader.header[name]):
        raise error(name, "a finite number", reader.header[name])
    return reader.header[name]


def _positive(reader: _Reader, name: str) -> float:
    if _finite(reader, name) <= 0:
        raise error(name, "a positive number", reader.header[name])
    return reader.header[name]
