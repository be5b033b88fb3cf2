"""Codes of inputs in the C library, against the grids."""

import itertools

import numpy as np
import pytest
from kernels.layers_for_tests import GRIDS, f32, make_grid, random_layer, random_weight
from kernels.reference_for_tests import expected

from kerasbits.packed import (
    FloatGrid,
    Floats,
    PackedTensor,
    PlanesGrid,
    TableGrid,
    Uniform,
    UniformGrid,
)
from tflite_export.blob.header import MAX_ZERO
from tflite_export.blob.writer import PackedLayer, write_blob
from tflite_export.native import NativeOp, isa


@pytest.mark.parametrize("grid", [g for g in GRIDS if not g.startswith("float")])
def test_input_codes_equal_those_of_the_grid(grid):
    rng = np.random.default_rng(6)
    quantizer = make_grid(grid)
    steps = quantizer.values(np.arange(2**quantizer.bits if "table" not in grid else 4))
    middles = (steps[1:] + steps[:-1]) / 2
    x = np.concatenate([rng.normal(size=4000) * 2, steps, middles, [0.0, -0.0, 1e30, -1e30]])
    x = np.concatenate([f32(x), np.nextafter(f32(middles), f32(9)), f32([np.inf, -np.inf])])
    layer = PackedLayer("dense", random_weight(rng, "uniform", (1, 1)), quantizer)
    with NativeOp(write_blob(layer)) as op:
        np.testing.assert_array_equal(op.input_codes(x), quantizer.codes(x))


@pytest.mark.parametrize("instructions", ["scalar", None])
def test_clip_of_three_planes_changes_codes(monkeypatch, instructions):
    """Beyond hi the sum of the first two scales overshoots, so the last sign falls."""
    if instructions:
        monkeypatch.setenv("KERASBITS_ISA", instructions)
    quantizer = make_grid("planes3_clipped")
    x = f32(np.concatenate([np.linspace(-3, 3, 1001), [1.2, -1.375, np.inf, -np.inf, np.nan]]))
    free = PlanesGrid(quantizer.scales)
    changed = quantizer.codes(x) != free.codes(x)
    np.testing.assert_array_equal(quantizer.codes(f32([3, -3])), [0b110, 0b001])
    np.testing.assert_array_equal(free.codes(f32([3, -3])), [0b111, 0b000])
    assert 0.2 < changed.mean() < 0.8
    rng = np.random.default_rng(6)
    layer = random_layer(rng, "dense", (len(x), 3), "uniform", "planes3_clipped")
    with NativeOp(write_blob(layer)) as op:
        np.testing.assert_array_equal(op.input_codes(x), quantizer.codes(x))
        y, bound = expected(layer, x)
        assert (np.abs(op.run(x) - y) <= bound).all()


def test_codes_of_a_grid_with_a_huge_zero():
    """Beyond the range where adding 1.5 * 2**23 rounds."""
    grid = UniformGrid(8, 0.0, 300.0, 0.0, float(np.float32(3e-5)), -9999700)
    x = f32(299.99 + np.arange(1000) * 1e-5)
    weight = random_weight(np.random.default_rng(0), "uniform", (1, 1))
    with NativeOp(write_blob(PackedLayer("dense", weight, grid))) as op:
        codes = op.input_codes(x)
    assert len(np.unique(codes)) > 50
    np.testing.assert_array_equal(codes, grid.codes(x))


@pytest.mark.parametrize("instructions", ["scalar", None])
@pytest.mark.parametrize("bits", [1, 8, 9, 16])
@pytest.mark.parametrize("zero", [-MAX_ZERO, MAX_ZERO])
def test_outer_codes_of_the_largest_zeros(monkeypatch, instructions, bits, zero):
    """The bounds of t = x / step are whole numbers that float32 has, so no code wraps around."""
    if instructions:
        monkeypatch.setenv("KERASBITS_ISA", instructions)
    grid = UniformGrid(bits, -np.inf, np.inf, 0.0, 1.0, zero)
    weight = random_weight(np.random.default_rng(0), "uniform", (1, 1))
    with NativeOp(write_blob(PackedLayer("dense", weight, grid))) as op:
        np.testing.assert_array_equal(op.input_codes(f32([-1e30, 1e30])), [0, 2**bits - 1])
        ends = f32([op.run(f32([x]))[0] for x in (-1e30, 1e30)])
    codes = np.array([-zero, 2.0**bits - 1 - zero]) * weight.decode()[0, 0]
    np.testing.assert_allclose(ends, codes, rtol=1e-6)
    beyond = UniformGrid(bits, -np.inf, np.inf, 0.0, 1.0, zero + int(np.sign(zero)))
    with pytest.raises(ValueError, match="input zero within"):
        write_blob(PackedLayer("dense", weight, beyond))


def unit_layer(op, grid, bits):
    """A layer that returns the value of its input, by a weight of 1."""
    shape = (1, 1) if op == "dense" else (1, 1, 1, 1)
    one = Uniform(f32([1]), np.zeros(1, np.int32), f32([0]))
    weight = PackedTensor("w", np.ones(shape, np.uint16), np.array([bits]), len(shape) - 1, one)
    return PackedLayer(op, weight, grid)


def around_borders(grid):
    """Numbers on the borders between codes, a few floats beside them, and others."""
    if isinstance(grid, PlanesGrid):
        signs = itertools.product((-1, 0, 1), repeat=len(grid.scales))
        borders = f32([f32(s) @ grid.scales for s in signs])
    else:
        borders = np.concatenate([grid.midpoints, -grid.midpoints]) * np.float32(grid.unit)
    x = [np.linspace(-3, 3, 331), borders, [0.0, -0.0, 1e-45, 1e38, np.inf, -np.inf, np.nan]]
    for towards in (np.inf, -np.inf):
        near = borders
        for _ in range(3):
            near = np.nextafter(near, np.float32(towards))
            x.append(near)
    return f32(np.concatenate(x))


def long_table(count, step, signed):
    """Levels `step` apart."""
    levels = np.arange(count) * step
    middles = f32((levels[1:] + levels[:-1]) / 2 / levels[-1])
    scale = float(np.float32(2.0 / levels[-1]))
    return TableGrid(10, signed, levels.astype(np.int16), middles, 2.0, scale)


LISTED = [make_grid(g) for g in GRIDS if g.startswith(("table", "planes"))] + [
    TableGrid(4, True, np.array([0, 1, 3, 4], np.int16), f32([1e-39, 0.2, 0.6]), 1.5, 0.5),
    *(long_table(*size, signed) for size in ((17, 1), (128, 2), (300, 5)) for signed in (0, 1)),
]
"""Grids of listed levels and planes: few codes, up to 256, more; levels of a byte, and of two."""


@pytest.mark.parametrize("instructions", ["scalar", "avx2", None])
@pytest.mark.parametrize("number", range(len(LISTED)))
def test_levels_change_where_codes_do(monkeypatch, number, instructions):
    if instructions:
        monkeypatch.setenv("KERASBITS_ISA", instructions)
    if instructions and isa() != instructions:
        pytest.skip(f"this machine has no {instructions}")
    grid = LISTED[number]
    x = around_borders(grid)
    want = grid.values(grid.codes(x))
    for op, bits in (("dense", 8), ("conv2d", 8), ("conv2d", 1)):
        with NativeOp(write_blob(unit_layer(op, grid, bits))) as native:
            y = native.run(x.reshape((-1, 1) if op == "dense" else (1, 1, -1, 1))).ravel()
        np.testing.assert_allclose(y, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("grid", [g for g in GRIDS if not g.startswith("float")])
def test_not_a_number_has_the_lowest_code(grid):
    rng = np.random.default_rng(2)
    layer = random_layer(rng, "dense", (5, 3), "uniform", grid)
    with NativeOp(write_blob(layer)) as op:
        np.testing.assert_array_equal(op.input_codes(f32([np.nan])), [0])
        np.testing.assert_array_equal(layer.grid.codes(f32([np.nan])), [0])
        assert np.isfinite(op.run(f32([np.nan, np.inf, -np.inf, 1e38, -1e38]))).all()


def test_float_grids_keep_not_a_number():
    weight = PackedTensor("w", np.zeros(0), np.full(2, 32), 1, Floats(f32([[1, 2], [3, 4]])))
    layer = PackedLayer("dense", weight, FloatGrid(-1, 1), act_min=-5, act_max=5)
    with NativeOp(write_blob(layer)) as op:
        y = op.run(f32([[np.nan, 1], [np.inf, -np.inf]]))
    assert np.isnan(y[0]).all()
    np.testing.assert_array_equal(y[1], [-2, -2])
