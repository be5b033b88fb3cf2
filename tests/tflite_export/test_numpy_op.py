"""`NumpyOp` against exact fractions in plain loops, against Keras, and against the C library."""

import keras
import numpy as np
import pytest
from kernels.fractions_for_tests import exact_kernel, exact_output
from kernels.layers_for_tests import (
    ENCODINGS,
    GRIDS,
    f32,
    inputs,
    make_grid,
    random_layer,
    random_weight,
)
from kernels.reference_for_tests import expected

from kerasbits.packed import (
    FloatGrid,
    Floats,
    PackedTensor,
    Planes,
    PlanesGrid,
    Uniform,
    UniformGrid,
)
from tflite_export.blob.writer import write_blob
from tflite_export.in_numpy.exact_terms import input_terms, total
from tflite_export.in_numpy.op import NumpyOp
from tflite_export.in_numpy.whole_numbers import whole_layer
from tflite_export.layer import PackedLayer
from tflite_export.native import NativeOp

PADS = ((1, 2), (0, 1))
CONVS = [
    ("conv2d", (3, 2, 2, 4), (2, 4, 3, 2), {"padding": "same"}),
    ("conv2d", (2, 3, 2, 4), (1, 5, 6, 2), {"strides": (2, 3), "dilations": (2, 1)}),
    ("conv2d", (3, 3, 2, 4), (1, 3, 4, 4), {"groups": 2, "padding": ((2, 0), (1, 3))}),
    (
        "conv2d",
        (3, 2, 2, 3),
        (1, 3, 2, 2),
        {"input_dilations": (2, 3), "padding": ((1, 2), (0, 1))},
    ),
    ("depthwise_conv2d", (2, 3, 3, 2), (1, 4, 5, 3), {"padding": "same", "strides": (2, 1)}),
    ("depthwise_conv2d", (3, 1, 6), (1, 3, 2, 3), {"groups": 3, "input_dilations": (2, 1)}),
]


def run(layer, x):
    with NumpyOp(write_blob(layer)) as op:
        return op.run(x)


def assert_neighbours(got, want):
    """Equal float32, or next to each other."""
    assert got.dtype == np.float32
    assert got.shape == want.shape
    between = np.minimum(got, want), np.maximum(got, want)
    assert (np.nextafter(between[0], f32(np.inf)) >= between[1]).all(), np.abs(got - want).max()


def assert_exact(layer, got, x):
    """Neighbours of the exact output; in layers of whole numbers within their roundings."""
    exact = exact_output(layer, x)
    if not whole_layer(layer):
        return assert_neighbours(got, exact)
    bound = expected(layer, x)[1] + 2.0**-24 * np.abs(exact)  # which is rounded itself
    assert got.dtype == np.float32
    assert (np.abs(np.float64(got) - exact) <= bound).all()
    return None


def assert_alike(layer, got, want, x):
    """The same bits, where the layer is one of whole numbers, else neighbours; or, where sums are
    float, within float rounding of the sum of magnitudes."""
    if whole_layer(layer):
        return np.testing.assert_array_equal(got, want)
    is_float = isinstance(layer.grid, FloatGrid) or isinstance(layer.weight.encoding, Floats)
    if not is_float and layer.op != "depthwise_conv2d":
        near = np.abs(got - want) <= 1e-12  # sums that cancel
        return assert_neighbours(np.where(near, want, got), want)
    magnitude = np.abs(layer.weight.decode()).max() * max(np.abs(x).max(), 20) * layer.row_size
    factor = 1 if layer.multiplier is None else np.abs(layer.multiplier).max()
    bound = (layer.row_size + 4) * 2.0**-24 * magnitude * factor
    np.testing.assert_allclose(got, want, rtol=2**-23, atol=bound)
    return None


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_dense_equals_fractions(encoding, grid):
    rng = np.random.default_rng(len(encoding) * 100 + len(grid))
    layer = random_layer(rng, "dense", (13, 4), encoding, grid)
    x = inputs(rng, (3, 13))
    assert_exact(layer, run(layer, x), x)


@pytest.mark.parametrize("case", range(len(CONVS)))
@pytest.mark.parametrize("grid", ["uniform3_no_zero", "table_signed", "planes2", "float_clipped"])
def test_convolutions_equal_fractions(case, grid):
    op, shape, image, window = CONVS[case]
    rng = np.random.default_rng(case)
    for encoding in ("uniform_mixed", "planes", "uniform_no_zero"):
        layer = random_layer(rng, op, shape, encoding, grid, **window)
        x = inputs(rng, image)
        assert_exact(layer, run(layer, x), x)


def float_layer(op, kernel, **more):
    kernel = f32(kernel)
    bits = np.full(kernel.shape[-1], 32)
    weight = PackedTensor("w", np.zeros(0), bits, kernel.ndim - 1, Floats(kernel))
    return PackedLayer(op, weight, FloatGrid(), **more)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("stride", "dilation", "groups"), [(1, 1, 1), (2, 1, 3), (3, 1, 1), (1, 2, 2)]
)
def test_equals_the_convolution_of_keras(padding, stride, dilation, groups):
    rng = np.random.default_rng(0)
    x, kernel = inputs(rng, (2, 9, 8, 6)), inputs(rng, (3, 2, 6 // groups, 12))
    expected = keras.ops.conv(x, kernel, stride, padding, "channels_last", dilation)
    window = {"strides": (stride,) * 2, "dilations": (dilation,) * 2, "padding": padding}
    got = run(float_layer("conv2d", kernel, groups=groups, **window), x)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2])
def test_equals_the_depthwise_convolution_of_keras(padding, stride):
    rng = np.random.default_rng(1)
    x, kernel = inputs(rng, (2, 7, 8, 3)), inputs(rng, (3, 2, 3, 2))
    expected = keras.ops.depthwise_conv(x, kernel, stride, padding, "channels_last")
    layer = float_layer("depthwise_conv2d", kernel, strides=(stride,) * 2, padding=padding)
    np.testing.assert_allclose(run(layer, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_equals_the_transposed_convolution_of_keras(stride):
    """A transposed convolution is one of a widened input with the kernel turned around."""
    rng = np.random.default_rng(2)
    x, kernel = inputs(rng, (2, 4, 5, 3)), inputs(rng, (3, 2, 4, 3))
    expected = keras.ops.conv_transpose(x, kernel, stride, "valid", None, "channels_last")
    turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    # Where the stride is longer than the kernel, Keras fills up with pixels that no tap meets.
    pads = [(k - 1, k - 1 + max(stride - k, 0)) for k in kernel.shape[:2]]
    layer = float_layer("conv2d", turned, input_dilations=(stride,) * 2, padding=tuple(pads))
    np.testing.assert_allclose(run(layer, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_embeddings_are_rows(axis, encoding):
    rng = np.random.default_rng(3)
    weight = random_weight(rng, encoding, (6, 5), axis)
    ids = np.array([[5, 0, 3], [2, 2, 1]])
    got = run(PackedLayer("embedding", weight, FloatGrid()), ids)
    np.testing.assert_array_equal(got, weight.decode()[ids])
    np.testing.assert_allclose(got, exact_kernel(weight).astype(float)[ids], rtol=1e-5, atol=1e-6)
    native = NativeOp(write_blob(PackedLayer("embedding", weight, FloatGrid()))).run(ids)
    np.testing.assert_array_equal(got, native)


@pytest.mark.parametrize("ids", [[6], [-1], [0.5], [2**40]])
def test_ids_without_a_row_are_refused(ids):
    weight = random_weight(np.random.default_rng(3), "uniform", (6, 5), 0)
    blob = write_blob(PackedLayer("embedding", weight, FloatGrid()))
    for make in (NumpyOp, NativeOp):
        with pytest.raises(ValueError, match="ids"):
            make(blob).run(np.array(ids))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("case", range(len(CONVS) + 1))
def test_equals_the_library(case, grid):
    op, shape, image, window = [*CONVS, ("dense", (130, 18), (2, 2, 130), {})][case]
    rng = np.random.default_rng(case)
    for encoding in ENCODINGS:
        layer = random_layer(rng, op, shape, encoding, grid, **window)
        x, blob = inputs(rng, image), write_blob(layer)
        with NumpyOp(blob) as numpy_op, NativeOp(blob) as native:
            assert numpy_op.output_shape(x.shape) == native.output_shape(x.shape)
            assert_alike(layer, numpy_op.run(x), native.run(x), x)
            np.testing.assert_array_equal(numpy_op.input_codes(x), native.input_codes(x))


def test_symmetric_sums_cancel_exactly():
    """A binary input and weights of both signs: a sum of 0 has no rounding left, nor a sign."""
    rng = np.random.default_rng(6)
    signs = np.resize([0, 1], (1234, 51)).astype(np.uint16)
    scale = f32(rng.random(51))
    offset = Uniform(2 * scale, np.zeros(51, np.int32), -scale)
    planes = Planes(2 * scale[None], -scale)
    x = np.ones((1, 1234))
    for encoding in (offset, planes):
        weight = PackedTensor("w", signs, np.ones(51, int), 1, encoding)
        for grid in (PlanesGrid(f32([0.7])), UniformGrid(1, -9, 9, -0.3, 0.6, 0)):
            layer = PackedLayer("dense", weight, grid)
            np.testing.assert_array_equal(run(layer, x), np.zeros((1, 51)))


@pytest.mark.parametrize("grid", [g for g in GRIDS if not g.startswith("float")])
def test_terms_are_whole_and_few(grid):
    """Half-integer grids need no second term; one of 3 bits at 0.5000001 of a step does."""
    x = np.linspace(-3, 3, 101)
    terms = input_terms(make_grid(grid), f32(x))
    assert all(np.array_equal(whole, np.rint(whole)) for _, whole in terms)
    assert len(terms) == (len(make_grid(grid).scales) if "planes" in grid else 1)
    values = make_grid(grid).values(make_grid(grid).codes(x))
    np.testing.assert_allclose(total(terms), values, rtol=1e-6, atol=1e-6)
    odd = UniformGrid(3, -1.0, 1.0, 0.1406251, 0.28125, 4)
    assert len(input_terms(odd, x)) == 2
    np.testing.assert_allclose(total(input_terms(odd, x)), odd.values(odd.codes(x)), atol=1e-6)


@pytest.mark.parametrize("grid", ["uniform8", "float", "planes2"])
@pytest.mark.parametrize("encoding", ["uniform", "uniform_no_zero", "planes"])
def test_what_is_no_number_goes_where_the_library_puts_it(grid, encoding):
    layer = random_layer(np.random.default_rng(4), "conv2d", (2, 2, 3, 4), encoding, grid)
    x = inputs(np.random.default_rng(5), (1, 4, 4, 3))
    x[0, 0, 0, 0], x[0, 3, 3, 1], x[0, 0, 3, 2] = np.nan, np.inf, -np.inf
    expected = NativeOp(write_blob(layer)).run(x)
    np.testing.assert_allclose(run(layer, x), expected, rtol=1e-5, atol=1e-5)
    assert np.isnan(expected).any() == (grid == "float")


def test_dropped_channels_give_the_bias():
    weight = random_weight(np.random.default_rng(1), "uniform", (4, 3))
    weight = PackedTensor("w", np.zeros_like(weight.codes), np.zeros(3, int), 1, weight.encoding)
    for grid in GRIDS:
        layer = PackedLayer("dense", weight, make_grid(grid), f32([3, -2, 9]), act_min=0, act_max=6)
        y = run(layer, np.full((2, 4), np.nan))
        np.testing.assert_array_equal(y, np.broadcast_to(f32([3, 0, 6]), (2, 3)))


def test_empty_batches_and_images():
    rng = np.random.default_rng(3)
    layer = random_layer(rng, "conv2d", (3, 3, 2, 4), "uniform", "uniform4", padding="same")
    assert run(layer, np.zeros((0, 5, 5, 2))).shape == (0, 5, 5, 4)
    assert run(layer, np.zeros((2, 0, 5, 2))).shape == (2, 0, 5, 4)
    dense = random_layer(rng, "dense", (2, 4), "uniform", "uniform4")
    assert run(dense, np.zeros((3, 0, 2))).shape == (3, 0, 4)


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        ("dense", (2, 7)),
        ("dense", ()),
        ("dense", (1,) * 8 + (8,)),
        ("conv2d", (2, 7, 7)),
        ("conv2d", (1, 7, 7, 3)),
        ("conv2d", (1, 2, 7, 8)),
    ],
)
def test_refuses_what_the_library_refuses(op, shape):
    kernel = (8, 2) if op == "dense" else (3, 3, 8, 2)
    blob = write_blob(random_layer(np.random.default_rng(0), op, kernel, "uniform", "uniform8"))
    messages = []
    for make in (NumpyOp, NativeOp):
        with pytest.raises(ValueError, match=r"got|expected") as info:
            make(blob).reserve(shape)
        messages.append(str(info.value))
    if len(shape) <= 8:
        assert messages[0] == messages[1]


def test_a_closed_op_is_refused():
    layer = random_layer(np.random.default_rng(0), "dense", (8, 2), "uniform", "uniform8")
    op = NumpyOp(write_blob(layer))
    op.close()
    op.close()
    with pytest.raises(ValueError, match="closed"):
        op.run(np.zeros(8))


def test_a_broken_blob_is_refused():
    layer = random_layer(np.random.default_rng(0), "dense", (8, 2), "uniform", "uniform8")
    with pytest.raises(ValueError, match="blob"):
        NumpyOp(write_blob(layer)[:-8])
