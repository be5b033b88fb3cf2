"""Header fields and sections of a blob to a `PackedLayer`, checking everything."""

from __future__ import annotations

import dataclasses
import math

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
from tflite_export.blob_header import MAX_ZERO, Header, error
from tflite_export.code_streams import unpack_codes
from tflite_export.layer import OPS, PackedLayer

Sections = dict[str, bytes]

_MAX_COUNT = 2**31 - 1


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
    out = reader.field("out_channels", 1, _MAX_COUNT)
    shape = [reader.field(n, 1, _MAX_COUNT) for n in ("kernel_h", "kernel_w", "in_channels")]
    groups = reader.field("groups", 1, out)
    row = math.prod(shape)
    if row * out > _MAX_COUNT or out % groups:
        raise error("out_channels", f"groups | O and O * K <= {_MAX_COUNT}", f"{out}, {row}")
    if op == "dense" and (shape[0], shape[1], groups) != (1, 1, 1):
        raise error("kernel_h", "kernel 1 x 1 and 1 group for dense", (*shape[:2], groups))
    if op == "depthwise_conv2d" and shape[2] != 1:
        raise error("in_channels", "1 for depthwise", shape[2])
    window = _window(reader, op)
    weight = _weight(reader, op, _keras_shape(op, shape, groups, out), out)
    grid = _grid(reader)
    optional = {
        name: reader.array(name, "<f4", out) if name in sections else None
        for name in ("bias", "multiplier")
    }
    if not header["act_min"] <= header["act_max"]:
        raise error("act_min", f"at most act_max {header['act_max']}", header["act_min"])
    reader.done()
    clamp = {"act_min": header["act_min"], "act_max": header["act_max"]}
    return PackedLayer(op, weight, grid, groups=groups, **optional, **window, **clamp)


def _keras_shape(op: str, shape: list[int], groups: int, out: int) -> tuple[int, ...]:
    if op == "dense":
        return (shape[2], out)
    return (*shape, out) if op == "conv2d" else (*shape[:2], groups, out // groups)


def _window(reader: _Reader, op: str) -> dict:
    names = ("stride_h", "stride_w", "dilation_h", "dilation_w")
    stride_h, stride_w, dilation_h, dilation_w = (reader.field(n, 1, _MAX_COUNT) for n in names)
    kind = reader.field("padding", 0, 2)
    names = ("pad_top", "pad_bottom", "pad_left", "pad_right")
    top, bottom, left, right = (reader.field(n, 0, _MAX_COUNT if kind == 2 else 0) for n in names)
    if op == "dense" and (stride_h, stride_w, dilation_h, dilation_w, kind) != (1, 1, 1, 1, 0):
        raise error("stride_h", "strides 1, dilations 1, VALID for dense", "others")
    padding = ("valid", "same", ((top, bottom), (left, right)))[kind]
    strides, dilations = (stride_h, stride_w), (dilation_h, dilation_w)
    return {"strides": strides, "dilations": dilations, "padding": padding}


def _weight(reader: _Reader, op: str, shape: tuple[int, ...], out: int) -> PackedTensor:
    row = math.prod(shape) // out
    kind = reader.field("encoding", 0, 3)
    bits = reader.array("channel_bits", "u1", out).astype(np.int32)
    per_channel = reader.field("per_channel", 0, 0 if kind == 3 else 1)
    if kind != 2:
        reader.field("table_length", 0, 0)
    limit = FLOAT_BITS if kind == 3 else 16
    if bits.max() > limit or bits.max() != reader.header["weight_bits"]:
        expected = f"the widest channel, at most {limit}"
        raise error("weight_bits", expected, reader.header["weight_bits"])
    if kind == 3:
        return _float_weight(reader, op, shape, bits)
    if kind != 0 and len(np.unique(bits[bits > 0])) > 1:
        raise ValueError(f"blob, section channel_bits: expected one width, got {bits}")
    reader.left.discard("codes")
    rows = unpack_codes(reader.sections.get("codes", b""), bits, row)
    encoding = _encoding(reader, kind, out if per_channel else 1, int(bits.max()))
    if kind == 2 and rows.max(initial=0) >= len(encoding.levels):
        raise ValueError(
            f"blob, section codes: expected < {len(encoding.levels)}, got {rows.max()}"
        )
    if op == "depthwise_conv2d":
        return _depthwise(rows, shape, bits, encoding)
    codes = frozen_copy(rows.T.reshape(shape), np.uint16)
    return PackedTensor("", codes, bits, len(shape) - 1, encoding)


def _float_weight(reader: _Reader, op: str, shape, bits: np.ndarray) -> PackedTensor:
    if not np.isin(bits, (0, FLOAT_BITS)).all():
        raise ValueError(f"blob, section channel_bits: expected 0 or {FLOAT_BITS}, got {bits}")
    kept, out = bits > 0, len(bits)
    rows = np.zeros((out, math.prod(shape) // out), np.float32)
    rows[kept] = reader.array("codes", "<f4", rows[kept].size).reshape(rows[kept].shape)
    axis, pick = len(shape) - 1, np.arange(out)
    if op == "depthwise_conv2d":
        axis, pick, shape = _depthwise_axis([bits], shape)
    values = frozen_copy(rows.T.reshape(shape), np.float32)
    return PackedTensor("", np.zeros(0, np.uint16), bits[pick], axis, Floats(values))


def _encoding(reader: _Reader, kind: int, width: int, planes: int) -> Uniform | Planes | Table:
    if kind == 1:
        scale = reader.array("scale", "<f4", planes * width).reshape(planes, width)
        return Planes(scale, reader.array("offset", "<f4", width))
    scale = reader.array("scale", "<f4", width)
    if kind == 2:
        return Table(reader.array("levels", "<i2", reader.field("table_length", 1, 65535)), scale)
    zero = reader.array("zero", "<i4", width)
    if np.abs(zero.astype(np.int64)).max() > MAX_ZERO:
        raise ValueError(f"blob, section zero: expected within +-{MAX_ZERO}, got {zero}")
    return Uniform(scale, zero, reader.array("offset", "<f4", width))


def _depthwise(rows: np.ndarray, shape, bits: np.ndarray, encoding) -> PackedTensor:
    parts = {f.name: getattr(encoding, f.name) for f in dataclasses.fields(encoding)}
    levels = {"levels": parts.pop("levels")} if "levels" in parts else {}
    wide = {name: p for name, p in parts.items() if p.shape[-1] == len(bits)}
    axis, pick, shape = _depthwise_axis([bits, *wide.values()], shape)
    parts |= {name: p[..., pick] for name, p in wide.items()}
    codes = frozen_copy(rows.T.reshape(shape), np.uint16)
    return PackedTensor("", codes, bits[pick], axis, type(encoding)(**parts, **levels))


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
