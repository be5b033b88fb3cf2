"""Random packed layers of every encoding and grid, and their meaning in plain NumPy."""

import numpy as np

from kerasbits.packed import (
    FloatGrid,
    Floats,
    PackedTensor,
    Planes,
    PlanesGrid,
    Table,
    TableGrid,
    Uniform,
    UniformGrid,
)
from tflite_export.layer import PackedLayer

ENCODINGS = (
    "uniform",
    "uniform_no_zero",
    "uniform_mixed",
    "uniform_tensor",
    "one_bit",
    "ternary",
    "table",
    "wide_table",
    "planes",
    "planes_tensor",
    "floats",
)
GRIDS = (
    "float",
    "float_clipped",
    "uniform8",
    "uniform4",
    "uniform1_no_zero",
    "uniform3_no_zero",
    "uniform12",
    "uniform16",
    "far_zero",
    "table_unsigned",
    "table_signed",
    "table_wide",
    "planes1",
    "planes2",
    "planes5",
    "planes3_clipped",
)


def f32(values):
    return np.asarray(values, np.float32)


def random_weight(rng, kind, shape, axis=-1):
    """A `PackedTensor` with a dropped channel wherever there are three channels or more."""
    channels = shape[axis]
    bits = np.full(channels, _width(rng, kind))
    if kind == "uniform_mixed":
        bits = rng.permutation(np.resize(np.arange(0, 17), channels))
    if channels >= 3:
        bits[rng.integers(channels)] = 0
    if kind == "floats":
        values = np.moveaxis(np.moveaxis(rng.normal(size=shape), axis, -1) * (bits > 0), -1, axis)
        codes = np.zeros(0, np.uint16)
        return PackedTensor("test", codes, bits, axis % len(shape), Floats(f32(values)))
    encoding = _encoding(rng, kind, channels, bits)
    top = 2**bits if not isinstance(encoding, Table) else np.minimum(len(encoding.levels), 2**bits)
    codes = np.moveaxis(np.zeros(shape), axis, -1)
    codes = np.floor(rng.random(codes.shape) * top).astype(np.uint16)
    return PackedTensor("test", np.moveaxis(codes, -1, axis), bits, axis % len(shape), encoding)


def _width(rng, kind):
    widths = {"one_bit": 1, "ternary": 2, "table": 4, "wide_table": 5, "floats": 32}
    return widths.get(kind) or int(rng.integers(2, 5))


def _encoding(rng, kind, channels, bits):
    scale = f32(rng.normal(size=channels) / (1 << bits))
    if kind.startswith("planes"):
        planes = f32(rng.normal(size=(bits.max(), channels)))
        offset = f32(rng.normal(size=channels))
        return (
            Planes(planes[:, :1], offset[:1]) if kind == "planes_tensor" else Planes(planes, offset)
        )
    if kind in ("ternary", "table", "wide_table"):
        levels = [-1, 0, 1]
        if kind != "ternary":
            bound = 60 if kind == "table" else 32767
            levels = rng.integers(-bound, bound, 2 ** _width(rng, kind) - 3)
        return Table(np.array(levels, np.int16), scale)
    if kind == "one_bit":
        return Uniform(f32(2 * scale), np.zeros(channels, np.int32), f32(-scale))
    zero = (1 << bits) // 2
    if kind == "uniform_no_zero":
        return Uniform(scale, zero.astype(np.int32), f32(rng.normal(size=channels) / 10))
    if kind == "uniform_tensor":
        return Uniform(scale[:1], zero[:1].astype(np.int32), np.zeros(1, np.float32))
    return Uniform(scale, zero.astype(np.int32), np.zeros(channels, np.float32))


def make_grid(kind):
    """An input grid for values of about [-2, 2]."""
    if kind.startswith("float"):
        return FloatGrid() if kind == "float" else FloatGrid(-1.0, 1.25)
    if kind.startswith("uniform") and not kind.endswith("no_zero"):
        bits = int(kind[7:])
        step = float(np.float32(3.0 / 2**bits))
        return UniformGrid(bits, -1.0, 2.0, 0.0, step, 2**bits // 3)
    named = {
        "uniform1_no_zero": UniformGrid(1, -np.inf, np.inf, -0.5, 1.0, 0),
        "uniform3_no_zero": UniformGrid(3, -1.0, 1.0, 0.140625, 0.28125, 4),
        "far_zero": UniformGrid(8, 0.5, 2.0, 0.0, float(np.float32(0.00586)), -86),
        "table_unsigned": _table([0, 1, 2, 3, 4, 6, 8, 12], False, 4),
        "table_signed": _table([0, 1, 2, 4, 8, 16, 48, 96], True, 4),
        "table_wide": _table([0, 100, 1500, 32767], True, 3),
        "planes1": PlanesGrid(f32([0.7])),
        "planes2": PlanesGrid(f32([0.9, 0.4])),
        "planes5": PlanesGrid(f32([1.0, 0.45, 0.3, 0.1, 0.05])),
        "planes3_clipped": PlanesGrid(f32([1.0, 0.45, 0.3]), -1.375, 1.2),
    }
    return named[kind]


def _table(levels, signed, bits):
    levels = np.array(levels, np.int16)
    shares = levels.astype(np.float64) / levels[-1]
    midpoints = f32((shares[1:] + shares[:-1]) / 2)
    return TableGrid(bits, signed, levels, midpoints, 1.75, float(np.float32(1.75 / levels[-1])))


def random_layer(rng, op, shape, encoding, grid, axis=-1, **window):
    """A layer with bias, and half the time a multiplier and an output clamp."""
    weight = random_weight(rng, encoding, shape, axis)
    out = int(np.prod(shape[2:])) if op == "depthwise_conv2d" else shape[-1]
    extra = dict(window, bias=f32(rng.normal(size=out)))
    if rng.random() < 0.5:
        extra |= {"multiplier": f32(rng.normal(size=out)), "act_min": -1.5, "act_max": 6.0}
    return PackedLayer(op, weight, make_grid(grid), **extra)


def inputs(rng, shape):
    return f32(rng.normal(size=shape))
