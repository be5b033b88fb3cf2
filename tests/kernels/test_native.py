import numpy as np
import pytest
from kernels.layers_for_tests import (
    ENCODINGS,
    GRIDS,
    f32,
    inputs,
    make_grid,
    random_layer,
    random_weight,
)
from kernels.reference_for_tests import expected, finish

from kerasbits.packed import (
    PackedTensor,
    Table,
    Uniform,
    UniformGrid,
)
from tflite_export.blob.writer import PackedLayer, write_blob
from tflite_export.native import NativeOp, isa

CONVS = [
    ("conv2d", (3, 3, 5, 7), (2, 6, 5), {"padding": "same"}),
    ("conv2d", (3, 2, 4, 5), (1, 9, 8), {"padding": "same", "strides": (2, 3)}),
    ("conv2d", (2, 3, 3, 6), (2, 8, 9), {"dilations": (3, 2)}),
    ("conv2d", (3, 3, 2, 3), (1, 4, 4), {"padding": "same", "dilations": (3, 5)}),
    ("conv2d", (1, 1, 9, 5), (2, 3, 4), {}),
    ("conv2d", (1, 1, 9, 5), (1, 5, 4), {"strides": (2, 2)}),
    ("conv2d", (5, 4, 2, 3), (1, 2, 3), {"padding": ((3, 1), (0, 4)), "strides": (1, 2)}),
    ("conv2d", (3, 3, 4, 6), (1, 5, 5), {"padding": "same", "groups": 2}),
    ("conv2d", (3, 1, 65, 4), (1, 4, 3), {"padding": "same"}),
    ("conv2d", (1, 4, 5, 3), (2, 1, 7), {"padding": ((0, 0), (6, 0)), "dilations": (1, 2)}),
    ("conv2d", (3, 4, 3, 5), (2, 4, 3), {"input_dilations": (2, 3), "padding": ((2, 1), (0, 3))}),
    (
        "conv2d",
        (4, 3, 2, 6),
        (1, 3, 5),
        {"input_dilations": (6, 2), "dilations": (4, 1), "groups": 2, "strides": (1, 2)},
    ),
    ("depthwise_conv2d", (3, 3, 5, 1), (2, 6, 5), {"padding": "same", "strides": (2, 1)}),
    ("depthwise_conv2d", (3, 2, 3, 2), (1, 7, 8), {"padding": ((1, 0), (2, 1)), "axis": 2}),
    ("depthwise_conv2d", (1, 1, 5, 1), (2, 3, 4), {}),
    ("depthwise_conv2d", (2, 3, 6), (1, 7, 8), {"dilations": (2, 2), "groups": 3}),
    (
        "depthwise_conv2d",
        (3, 3, 4),
        (2, 5, 6),
        {"padding": ((0, 2), (3, 0)), "groups": 4, "strides": (2, 2)},
    ),
    (
        "depthwise_conv2d",
        (2, 3, 8),
        (1, 3, 4),
        {"input_dilations": (2, 2), "groups": 4, "padding": ((1, 1), (1, 2))},
    ),
]


def run(layer, x):
    with NativeOp(write_blob(layer)) as op:
        return op.run(x)


def both(monkeypatch, layer, x):
    """Output of the scalar kernels, after comparing the best ones with them bit by bit."""
    best = run(layer, x)
    monkeypatch.setenv("KERASBITS_ISA", "scalar")
    assert isa() == "scalar"
    plain = run(layer, x)
    monkeypatch.delenv("KERASBITS_ISA")
    np.testing.assert_array_equal(best, plain)
    return plain


def check(monkeypatch, layer, x):
    y, bound = expected(layer, x)
    got = both(monkeypatch, layer, x)
    assert got.shape == y.shape
    worst = np.max(np.abs(got - y) - bound)
    assert worst <= 0, f"{worst} above the bound {bound.max()}"


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_dense_equals_numpy(monkeypatch, encoding, grid):
    rng = np.random.default_rng(len(encoding) * 100 + len(grid))
    for shape, batch in (((37, 7), 5), ((130, 18), 3), ((1, 1), 2)):
        layer = random_layer(rng, "dense", shape, encoding, grid)
        check(monkeypatch, layer, inputs(rng, (batch, shape[0])))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("case", range(len(CONVS)))
def test_convolutions_equal_numpy(monkeypatch, case, grid):
    op, shape, image, window = CONVS[case]
    rng = np.random.default_rng(case)
    for encoding in ("uniform_mixed", "one_bit", "table", "planes", "uniform_no_zero", "floats"):
        layer = random_layer(rng, op, shape, encoding, grid, **window)
        channels = layer.groups * layer.in_channels
        check(monkeypatch, layer, inputs(rng, (*image, channels)))


@pytest.mark.parametrize("channels", [1, 3, 4, 8, 12, 16, 33, 48, 64, 72])
def test_bits_of_any_number_of_channels(monkeypatch, channels):
    """Bits are packed pixel by pixel, row by row or window by window, by what fills whole bytes."""
    rng = np.random.default_rng(channels)
    for grid in ("planes1", "uniform1_no_zero", "uniform12"):
        window = {"padding": "same", "strides": (1 + channels % 2, 1)}
        layer = random_layer(rng, "conv2d", (3, 3, channels, 5), "one_bit", grid, **window)
        check(monkeypatch, layer, inputs(rng, (2, 4, 7, channels)))


@pytest.mark.parametrize("seed", range(25))
def test_random_geometry(monkeypatch, seed):
    rng = np.random.default_rng(seed)

    def draw(low, high):
        return int(rng.integers(low, high + 1))

    kernel, strides, dilations = ((draw(1, 4), draw(1, 4)) for _ in range(3))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = tuple((draw(0, 3), draw(0, 3)) for _ in range(2))
    padding = ("same", "valid", pads)[seed % 3]
    dilated = (draw(1, 3), draw(1, 4)) if padding != "same" else (1, 1)
    image = [draw(1, 5) + (r if padding != "same" else 0) for r in reach]
    op, groups = (("conv2d", 1), ("conv2d", draw(2, 3)), ("depthwise_conv2d", 0))[draw(0, 2)]
    shape = (*kernel, draw(1, 7), max(1, groups) * draw(1, 6))
    window = {"strides": strides, "dilations": dilations, "padding": padding, "groups": groups}
    window["input_dilations"] = dilated
    encoding, grid = ENCODINGS[draw(0, len(ENCODINGS) - 1)], GRIDS[draw(0, len(GRIDS) - 1)]
    layer = random_layer(
        rng, op, shape, encoding, grid, **window, axis=draw(2, 3) if not groups else -1
    )
    check(monkeypatch, layer, inputs(rng, (draw(1, 3), *image, layer.groups * layer.in_channels)))


def test_many_pixels_and_outputs(monkeypatch):
    """More than one block of pixels, and rows of every form in one layer."""
    rng = np.random.default_rng(5)
    window = {"padding": "same"}
    layer = random_layer(
        rng, "conv2d", (3, 3, 70, 33), "uniform_mixed", "uniform1_no_zero", **window
    )
    check(monkeypatch, layer, inputs(rng, (1, 23, 19, 70)))


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_dense_of_any_rank(monkeypatch, rank):
    rng = np.random.default_rng(rank)
    layer = random_layer(rng, "dense", (6, 3), "uniform", "uniform8")
    check(monkeypatch, layer, inputs(rng, (2, 3, 4, 6)[-rank:]))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("encoding", ["uniform", "one_bit", "planes", "floats"])
def test_padding_adds_nothing(monkeypatch, encoding, grid):
    """An image that is one pixel, of which every other tap lies outside."""
    rng = np.random.default_rng(7)
    layer = random_layer(rng, "conv2d", (3, 3, 4, 5), encoding, grid, padding="same")
    x = inputs(rng, (1, 1, 1, 4))
    centre = layer.weight.decode()[1, 1].astype(np.float64)
    xq = x if "float" not in grid else np.clip(x, layer.grid.lo, layer.grid.hi)
    xq = xq if "float" in grid else layer.grid.values(layer.grid.codes(x))
    y = finish(layer, xq[0, 0].astype(np.float64) @ centre)
    # Decoded values are rounded to float32 here, those of the C library are not.
    np.testing.assert_allclose(both(monkeypatch, layer, x)[0, 0], y, rtol=1e-5, atol=2e-5)


def test_outside_of_the_image_altogether():
    rng = np.random.default_rng(8)
    layer = random_layer(
        rng, "conv2d", (2, 2, 3, 4), "uniform_no_zero", "uniform3_no_zero", padding=((5, 0), (5, 0))
    )
    y = run(layer, inputs(rng, (1, 2, 2, 3)))
    only_bias = finish(layer, np.zeros(4)).astype(np.float32)
    np.testing.assert_array_equal(y[0, :4], np.broadcast_to(only_bias, (4, 6, 4)))


def extreme(bits, rows, sign=1):
    """A dense layer whose codes are all at one end of a signed range of `bits`."""
    top = 2**bits - 1
    codes = np.full((rows, 3), top if sign > 0 else 0, np.uint16)
    encoding = Uniform(f32([1]), np.array([2 ** (bits - 1)], np.int32), f32([0]))
    weight = PackedTensor("w", codes, np.full(3, bits), 1, encoding)
    grid = UniformGrid(16, 0.0, 65535.0, 0.0, 1.0, 0)
    return PackedLayer("dense", weight, grid)


@pytest.mark.parametrize(("bits", "rows"), [(16, 300), (16, 70001), (8, 70001), (7, 140001)])
@pytest.mark.parametrize("sign", [1, -1])
def test_largest_sums_do_not_overflow(monkeypatch, bits, rows, sign):
    layer = extreme(bits, rows, sign)
    weight = 2 ** (bits - 1) - 1 if sign > 0 else -(2 ** (bits - 1))
    exact = np.float32(weight * 65535 * rows)
    np.testing.assert_array_equal(both(monkeypatch, layer, np.full(rows, 65535.0)), [exact] * 3)


@pytest.mark.parametrize("bound", [1, 63, 64, 65, 100, 127, 128, 129, 255, 256, 32767])
@pytest.mark.parametrize("sign", [1, -1])
def test_products_do_not_saturate(monkeypatch, bound, sign):
    """Levels at the edges of int8 and int16 pairs, all inputs 255."""
    encoding = Table(np.array([-bound, bound], np.int16), f32([1]))
    codes = np.full((70, 5), int(sign > 0), np.uint16)
    weight = PackedTensor("w", codes, np.full(5, 1), 1, encoding)
    layer = PackedLayer("dense", weight, UniformGrid(8, 0.0, 255.0, 0.0, 1.0, 0))
    exact = np.full(5, sign * bound * 255 * 70, np.float32)
    np.testing.assert_array_equal(both(monkeypatch, layer, np.full(70, 255.0)), exact)


@pytest.mark.parametrize("weight_bits", range(1, 17))
@pytest.mark.parametrize("input_bits", [1, 2, 4, 8, 9, 16])
def test_whole_numbers_are_exact(monkeypatch, weight_bits, input_bits):
    """Scales of 1: outputs are whole numbers below 2**24 and must come out exactly."""
    rng = np.random.default_rng(weight_bits)
    zero = 2 ** (weight_bits - 1)
    rows = max(1, min(67, 2 ** (24 - weight_bits - input_bits)))
    codes = rng.integers(0, 2**weight_bits, (rows, 6)).astype(np.uint16)
    encoding = Uniform(f32([1]), np.array([zero], np.int32), f32([0]))
    weight = PackedTensor("w", codes, np.full(6, weight_bits), 1, encoding)
    grid = UniformGrid(input_bits, 0.0, 2.0**input_bits - 1, 0.0, 1.0, 0)
    x = rng.integers(0, 2**input_bits, (4, rows)).astype(np.float32)
    exact = x.astype(np.int64) @ (codes.astype(np.int64) - zero)
    layer = PackedLayer("dense", weight, grid)
    got = both(monkeypatch, layer, x)
    np.testing.assert_array_equal(got, exact.astype(np.float32))


def test_dropped_channels_give_the_bias():
    weight = random_weight(np.random.default_rng(1), "uniform", (4, 3))
    weight = PackedTensor("w", np.zeros_like(weight.codes), np.zeros(3, int), 1, weight.encoding)
    for grid in GRIDS:
        layer = PackedLayer("dense", weight, make_grid(grid), f32([3, -2, 9]), act_min=0, act_max=6)
        y = run(layer, np.full((2, 4), np.nan))
        np.testing.assert_array_equal(y, np.broadcast_to(f32([3, 0, 6]), (2, 3)))


def test_empty_batches():
    rng = np.random.default_rng(3)
    layer = random_layer(rng, "conv2d", (3, 3, 2, 4), "uniform", "uniform4", padding="same")
    assert run(layer, np.zeros((0, 5, 5, 2))).shape == (0, 5, 5, 4)
    dense = random_layer(rng, "dense", (2, 4), "uniform", "uniform4")
    assert run(dense, np.zeros((3, 0, 2))).shape == (3, 0, 4)


def test_one_op_serves_many_shapes():
    rng = np.random.default_rng(4)
    layer = random_layer(rng, "conv2d", (3, 3, 3, 4), "uniform", "table_signed", padding="same")
    with NativeOp(write_blob(layer)) as op:
        for size in (9, 2, 5, 17, 1, 9):
            x = inputs(rng, (2, size, size + 1, 3))
            op.reserve(x.shape)
            y, bound = expected(layer, x)
            assert (np.abs(op.run(x) - y) <= bound).all()


@pytest.mark.parametrize("instructions", ["scalar", "avx2", None])
@pytest.mark.parametrize("grid", ["planes1", "planes2", "uniform12"])
@pytest.mark.parametrize("channels", [8, 80])
def test_windows_of_bits_do_not_see_what_earlier_shapes_left(
    monkeypatch, channels, grid, instructions
):
    """Windows that end within a unit: what lies behind them in scratch memory is old."""
    if instructions:
        monkeypatch.setenv("KERASBITS_ISA", instructions)
    if instructions and isa() != instructions:
        pytest.skip(f"this machine has no {instructions}")
    rng = np.random.default_rng(channels)
    layer = random_layer(rng, "conv2d", (3, 3, channels, 7), "planes", grid, padding="same")
    with NativeOp(write_blob(layer)) as op:
        for size in ((9, 13), (3, 4), (7, 11), (2, 5), (1, 12)):
            x = inputs(rng, (2, *size, channels))
            with NativeOp(write_blob(layer)) as fresh:
                np.testing.assert_array_equal(op.run(x), fresh.run(x))


def test_table_with_a_single_level(monkeypatch):
    encoding = Table(np.array([5], np.int16), f32([0.5]))
    weight = PackedTensor("w", np.zeros((3, 2), np.uint16), np.array([1, 1]), 1, encoding)
    for grid in ("uniform8", "planes2", "float"):
        layer = PackedLayer("dense", weight, make_grid(grid))
        check(monkeypatch, layer, inputs(np.random.default_rng(0), (2, 3)))


@pytest.mark.parametrize(
    ("op", "shape", "message"),
    [
        ("dense", (2, 7), "8 channels, got rank 2 with 7"),
        ("dense", (), "rank 0"),
        ("dense", (1,) * 8 + (8,), "at most 8 axes"),
        ("conv2d", (2, 7, 7), "rank 3"),
        ("conv2d", (1, 7, 7, 3), "8 channels, got rank 4 with 3"),
        ("conv2d", (1, 2, 7, 8), "kernel of 3 fits into, got 2"),
    ],
)
def test_wrong_shapes_are_refused(op, shape, message):
    kernel = (8, 2) if op == "dense" else (3, 3, 8, 2)
    layer = random_layer(np.random.default_rng(0), op, kernel, "uniform", "uniform8")
    with NativeOp(write_blob(layer)) as native, pytest.raises(ValueError, match=message):
        native.run(np.zeros(shape))


def test_an_unknown_instruction_set_is_refused(monkeypatch):
    layer = random_layer(np.random.default_rng(0), "dense", (8, 2), "uniform", "uniform8")
    monkeypatch.setenv("KERASBITS_ISA", "vax")
    with pytest.raises(ValueError, match=r"KERASBITS_ISA.*scalar.*got vax"):
        NativeOp(write_blob(layer))


def test_a_closed_op_is_refused():
    layer = random_layer(np.random.default_rng(0), "dense", (8, 2), "uniform", "uniform8")
    op = NativeOp(write_blob(layer))
    op.close()
    op.close()
    with pytest.raises(ValueError, match="closed"):
        op.run(np.zeros(8))
