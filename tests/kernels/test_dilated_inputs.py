"""Convolutions of inputs with zeros between their pixels, which transposed convolutions are."""

import dataclasses

import keras
import numpy as np
import pytest
from kernels.layers_for_tests import GRIDS, f32, inputs, make_grid, random_layer

from kerasbits.packed import FloatGrid, Floats, PackedTensor, Uniform, UniformGrid
from tflite_export.blob.writer import read_blob, write_blob
from tflite_export.layer import PackedLayer
from tflite_export.native import NativeOp


def run(layer, x):
    with NativeOp(write_blob(layer)) as op:
        return op.run(x)


def floats(kernel):
    bits = np.full(kernel.shape[-1], 32)
    return PackedTensor("up", np.zeros(0), bits, kernel.ndim - 1, Floats(f32(kernel)))


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("size", "strides"), [((3, 3), (2, 2)), ((2, 4), (3, 1)), ((1, 2), (2, 3))]
)
def test_transposed_convolutions_equal_those_of_keras(size, strides, padding, dilation):
    """The kernel flipped, its channels swapped, and padding to the size that Keras gives."""
    if dilation > 1 and max(strides) > 1:
        strides = (1, 1)  # Keras has no kernel for both
    rng = np.random.default_rng(0)
    x, kernel = inputs(rng, (2, 4, 5, 3)), inputs(rng, (*size, 6, 3))
    y = np.asarray(keras.ops.conv_transpose(x, kernel, strides, padding, dilation_rate=dilation))
    pads = []
    for axis in range(2):
        reach = (size[axis] - 1) * dilation + 1
        forward = max(reach - strides[axis], 0) if padding == "same" else 0
        before = reach - 1 - forward // 2
        widened = (x.shape[axis + 1] - 1) * strides[axis] + 1
        pads.append((before, y.shape[axis + 1] - widened + reach - 1 - before))
    flipped = np.swapaxes(kernel[::-1, ::-1], 2, 3)
    window = {"padding": tuple(pads), "input_dilations": strides, "dilations": (dilation,) * 2}
    layer = PackedLayer("conv2d", floats(flipped), FloatGrid(), **window)
    np.testing.assert_allclose(run(layer, x), y, rtol=1e-4, atol=1e-5)


def test_by_hand():
    """A row 1, 2 with one zero between, under the taps 1, 10, 100."""
    layer = PackedLayer(
        "conv2d",
        floats(np.reshape([1, 10, 100], (1, 3, 1, 1))),
        FloatGrid(),
        padding=((0, 0), (1, 2)),
        input_dilations=(1, 2),
    )
    y = run(layer, f32([1, 2]).reshape(1, 1, 2, 1))
    # The padded row is 0 1 0 2 0 0.
    np.testing.assert_array_equal(y[0, 0, :, 0], [10, 201, 20, 2])


@pytest.mark.parametrize("op", ["conv2d", "depthwise_conv2d"])
@pytest.mark.parametrize("grid", GRIDS)
def test_zeros_between_pixels_add_nothing(grid, op):
    """A kernel of 2 x 2 on pixels 2 apart meets one pixel at a time: each output is one product.

    So it must be the same as a 1 x 1 kernel of that tap, even where 0 is no code of the grid.
    """
    rng = np.random.default_rng(1)
    shape, encoding = (2, 2, 4, 1 if op == "depthwise_conv2d" else 3), "uniform_no_zero"
    window = {"input_dilations": (2, 2), "padding": ((1, 1), (1, 1))}
    layer = random_layer(rng, op, shape, encoding, grid, **window)
    x = inputs(rng, (2, 3, 4, 4))
    y = run(layer, x)
    assert y.shape[1:3] == (6, 8)
    for row in range(2):
        for column in range(2):
            tap = layer.weight.codes[row : row + 1, column : column + 1]
            weight = dataclasses.replace(layer.weight, codes=tap)
            single = dataclasses.replace(
                layer, weight=weight, input_dilations=(1, 1), padding="valid"
            )
            expected = run(single, x)
            got = y[:, 1 - row :: 2, 1 - column :: 2]
            if op == "conv2d":
                np.testing.assert_array_equal(got, expected)
            else:  # only the single tap is done on whole numbers, where 0 is no code
                np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dilations", [(3, 4), (5, 2)])
def test_outputs_that_meet_no_pixel_are_the_bias(dilations):
    """Between pixels further apart than the kernel reaches there is nothing."""
    grid = UniformGrid(4, -1.0, 1.0, 0.3, 0.125, 7)
    encoding = Uniform(f32([0.5]), np.array([1], np.int32), f32([0.1]))
    weight = PackedTensor("up", np.full((2, 1, 3, 2), 3, np.uint16), np.full(2, 2), 3, encoding)
    layer = PackedLayer("conv2d", weight, grid, f32([3, -4]), input_dilations=dilations)
    x = np.ones((1, 4, 4, 3), np.float32)
    y = run(layer, x)
    rows = np.arange(y.shape[1]) % dilations[0]
    columns = np.arange(y.shape[2]) % dilations[1]
    meets = np.isin(rows, [0, dilations[0] - 1])[:, None] & (columns == 0)
    assert y.shape[1:3] == (3 * dilations[0], 3 * dilations[1] + 1)
    np.testing.assert_array_equal(y[0, ~meets], np.broadcast_to(f32([3, -4]), ((~meets).sum(), 2)))
    assert not np.isin(y[0, meets], [3, -4]).any()


@pytest.mark.parametrize("size", [0, 1])
def test_an_image_of_one_pixel_or_none(size):
    layer = PackedLayer(
        "conv2d",
        floats(np.ones((1, 2, 1, 1))),
        FloatGrid(),
        f32([7]),
        padding=((0, 0), (1, 1)),
        input_dilations=(3, 3),
    )
    y = run(layer, np.full((1, 1, size, 1), 5, np.float32))
    np.testing.assert_array_equal(y[0, 0, :, 0], [12, 12] if size else [7])


def test_round_trip_and_limits():
    layer = random_layer(
        np.random.default_rng(2),
        "conv2d",
        (2, 2, 3, 4),
        "uniform",
        "float",
        input_dilations=(2, 65535),
        padding=((0, 65535), (1, 0)),
    )
    back = read_blob(write_blob(layer))
    assert (back.input_dilations, back.padding) == ((2, 65535), ((0, 65535), (1, 0)))
    with pytest.raises(ValueError, match=r"layer 'test': .*explicit padding.*got same"):
        dataclasses.replace(layer, padding="same")
    with pytest.raises(ValueError, match="input_dilations up to 65535"):
        dataclasses.replace(layer, input_dilations=(1, 65536))
    with pytest.raises(ValueError, match="0 to 65535"):
        dataclasses.replace(layer, padding=((0, 65536), (0, 0)))
    dense = random_layer(np.random.default_rng(2), "dense", (3, 4), "uniform", "float")
    with pytest.raises(ValueError, match=r"input_dilations \(1, 1\) for dense"):
        dataclasses.replace(dense, input_dilations=(2, 1))


def test_grids_without_a_zero_are_among_those_tested():
    assert any(make_grid(g).values(np.arange(4)).all() for g in GRIDS if "no_zero" in g)
