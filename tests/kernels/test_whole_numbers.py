"""Layers on whole numbers: when they are, and that what they scale in float32 is exact before."""

import numpy as np
import pytest
from kernels.layers_for_tests import f32, inputs, make_grid, random_layer
from kernels.reference_for_tests import exact_input, exact_weight, sums

from kerasbits.packed import PackedTensor, Table, Uniform, UniformGrid
from tflite_export.blob.writer import write_blob
from tflite_export.in_numpy.op import NumpyOp
from tflite_export.in_numpy.whole_numbers import whole_layer
from tflite_export.layer import PackedLayer
from tflite_export.native import NativeOp, isa

LEVELS = UniformGrid(8, 0.0, 255.0, 0.0, 1.0, 0)


def dense(codes, encoding, bits, grid=LEVELS, **more):
    weight = PackedTensor("w", np.asarray(codes, np.uint16), np.asarray(bits), 1, encoding)
    return PackedLayer("dense", weight, grid, **more)


def uniform(scale, zero, origin):
    return Uniform(f32(scale), np.asarray(zero, np.int32), f32(origin))


def everywhere(monkeypatch, layer, x):
    """The output of each instruction set here, of NumPy, and of two halves of the channels: all
    have the same bits."""
    y = NumpyOp(write_blob(layer)).run(x)
    best = isa()
    for name in {"scalar", "avx2", best} - ({"avx2"} if best not in ("avx2", "avx512") else set()):
        monkeypatch.setenv("KERASBITS_ISA", name)
        with NativeOp(write_blob(layer)) as op:
            np.testing.assert_array_equal(op.run(x).view(np.int32), y.view(np.int32))
    monkeypatch.delenv("KERASBITS_ISA")
    return y


@pytest.mark.parametrize(("rows", "is_whole"), [(257, True), (258, False), (600, False)])
def test_largest_totals(monkeypatch, rows, is_whole):
    """257 * 255 * 16383 is the last multiple below 2**30; what lies above is done in float64."""
    levels = np.array([-16383, 16383], np.int16)
    layer = dense(np.ones((rows, 3)), Table(levels, f32([1, -1, 0.5])), [1, 1, 1])
    assert bool(whole_layer(layer)) == is_whole
    y = everywhere(monkeypatch, layer, np.full((1, rows), 255.0))
    total = np.float64(rows * 255 * 16383)
    np.testing.assert_array_equal(y, f32([[total, -total, total / 2]]))


@pytest.mark.parametrize("lowest", [0, 127])
def test_parts_may_be_larger_than_totals(monkeypatch, lowest):
    """Rows that are cut, since sums of their unsigned codes leave int32; the total does not."""
    rng = np.random.default_rng(lowest)
    codes = rng.integers(lowest, 128, (100_000, 3))
    grid = UniformGrid(8, -128.0, 127.0, 0.0, 1.0, 128)
    layer = dense(codes, uniform([1], [0], [-64]), [7] * 3, grid)
    assert whole_layer(layer)
    y = everywhere(monkeypatch, layer, np.full((2, 100_000), 127.0))
    total = 127 * (codes - 64).sum(axis=0)
    np.testing.assert_array_equal(y, f32([total, total]))


@pytest.mark.parametrize("zero", [0, 1, 77, 128, 255])
def test_offsets_of_inputs_cancel_before_they_are_rounded(monkeypatch, zero):
    """Weights of one sign, and inputs that are all but a few at the zero: what the zeros add is
    thousands of times the rest."""
    rng = np.random.default_rng(zero)
    codes = rng.integers(0, 16, (900, 5))
    step = float(f32(0.0131))
    grid = UniformGrid(8, -step * zero, step * (255 - zero), 0.0, step, zero)
    scale = f32(rng.normal(size=5))
    layer = dense(codes, uniform(scale, np.zeros(5), np.zeros(5)), [4] * 5, grid)
    x = np.zeros((4, 900), np.float32)
    x[:, :2] = f32(step * rng.integers(-1, 2, (4, 2)))
    exact = exact_input(grid, x) @ exact_weight(layer.weight)
    y = everywhere(monkeypatch, layer, x)
    assert (np.abs(y - exact) <= 3.001 * 2.0**-24 * np.abs(exact)).all()


def test_channels_of_all_offsets_share_tiles(monkeypatch):
    """Signs, half steps, whole steps and plain channels; levels of half steps: each total has its
    own power of two. Scales have few digits, so that steps times them are floats."""
    rng = np.random.default_rng(3)
    kinds = [(1, 0, -0.5), (1, 0, 0.5), (3, 4, 0), (4, 8, 0.5), (2, 0, -3), (8, 128, 2.5)]
    kinds.append((0, 0, 0))
    bits, zero, steps = (np.array(part) for part in zip(*(kinds * 3), strict=True))
    scale = f32(rng.integers(1, 999, 21) * rng.choice([-1, 1], 21) / 512)
    codes = np.floor(rng.random((70, 21)) * 2**bits)
    grid = make_grid("uniform3_no_zero")
    more = {"bias": f32(rng.normal(size=21)), "multiplier": f32(rng.normal(size=21))}
    layer = dense(codes, uniform(scale, zero, scale * f32(steps)), bits, grid, **more)
    assert whole_layer(layer)
    x = inputs(rng, (5, 70))
    exact = sums(layer, exact_input(grid, x), exact_weight(layer.weight)) * layer.multiplier
    error = np.abs(everywhere(monkeypatch, layer, x) - (exact + layer.bias))
    assert (error <= 1.001 * 2.0**-24 * (3 * np.abs(exact) + np.abs(exact + layer.bias))).all()


@pytest.mark.parametrize(
    ("origin", "multiplier", "is_whole"),
    [
        (0.0, 1.0, True),
        (1.5, -2.0, True),
        (0.25, 1.0, False),
        (0.0, 0.0, True),
        (0.0, 1e-20, True),
        (0.0, 1e-38, False),
        (0.0, 1e34, False),
    ],
)
def test_what_makes_a_layer_whole(monkeypatch, origin, multiplier, is_whole):
    """Offsets in half steps, and scales that are normal floats."""
    rng = np.random.default_rng(4)
    encoding = uniform(np.ones(3), [3, 4, 5], [0, origin, 0])
    layer = dense(rng.integers(0, 8, (9, 3)), encoding, [3] * 3, multiplier=f32([1, multiplier, 1]))
    assert bool(whole_layer(layer)) == is_whole
    x = f32(rng.integers(0, 256, (4, 9)))
    weight = np.asarray(layer.weight.codes, np.float64) - [3, 4, 5] + [0, origin, 0]
    y = everywhere(monkeypatch, layer, x)
    np.testing.assert_array_equal(y, f32((x @ weight) * np.float64(layer.multiplier)))


@pytest.mark.parametrize("grid", ["uniform8", "uniform4", "uniform1_no_zero", "far_zero"])
@pytest.mark.parametrize("encoding", ["uniform", "one_bit", "ternary", "uniform_no_zero"])
def test_depthwise_layers(monkeypatch, encoding, grid):
    """Those on whole numbers have the bits of NumPy; with an offset of half a step, too."""
    rng = np.random.default_rng(len(encoding))
    for channels in (5, 32, 161):
        padding = "valid" if grid in ("uniform1_no_zero", "far_zero") else "same"
        kernel = (3, 3, channels, 1)
        layer = random_layer(rng, "depthwise_conv2d", kernel, encoding, grid, padding=padding)
        assert bool(whole_layer(layer)) == (encoding != "uniform_no_zero")
        if encoding != "uniform_no_zero":
            everywhere(monkeypatch, layer, inputs(rng, (1, 7, 6, channels)))
