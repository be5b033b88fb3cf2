"""Convolutions of special shapes against Keras and by hand: 1-D, grouped, depthwise, empty."""

import dataclasses

import keras
import numpy as np
import pytest
from kernels.layers_for_tests import ENCODINGS, GRIDS, f32, inputs, random_layer, random_weight
from kernels.reference_for_tests import expected, finish

from kerasbits.packed import FloatGrid, UniformGrid
from tflite_export.blob.writer import write_blob
from tflite_export.layer import PackedLayer
from tflite_export.native import NativeOp


def run(layer, x):
    with NativeOp(write_blob(layer)) as op:
        return op.run(x)


def check(layer, x):
    y, bound = expected(layer, x)
    got = run(layer, x)
    assert got.shape == y.shape
    assert (np.abs(got - y) <= bound).all()


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 3), (2, 1)])
@pytest.mark.parametrize("encoding", ["uniform", "one_bit", "planes", "floats"])
def test_causal_convolutions_equal_keras(encoding, stride, dilation):
    """A Conv1D is a Conv2D of one row, and "causal" is padding on the left."""
    rng = np.random.default_rng(0)
    left = (4 - 1) * dilation
    window = {"strides": (1, stride), "dilations": (1, dilation), "padding": ((0, 0), (left, 0))}
    weight = random_weight(rng, encoding, (1, 4, 3, 5))
    layer = PackedLayer("conv2d", weight, FloatGrid(), **window)
    x = inputs(rng, (2, 1, 11, 3))
    padded = np.pad(x[:, 0], ((0, 0), (left, 0), (0, 0)))
    y = keras.ops.conv(padded, weight.decode()[0], stride, "valid", dilation_rate=dilation)
    np.testing.assert_allclose(run(layer, x)[:, 0], np.asarray(y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grid", GRIDS)
def test_causal_convolutions_of_every_grid(grid):
    rng = np.random.default_rng(1)
    window = {"padding": ((0, 0), (5, 0)), "dilations": (1, 2)}
    layer = random_layer(rng, "conv2d", (1, 3, 4, 5), "uniform_no_zero", grid, **window)
    check(layer, inputs(rng, (2, 1, 7, 4)))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("grid", ["float", "planes1", "uniform4", "uniform16", "table_signed"])
def test_groups_of_every_form(encoding, grid):
    """Few-bit planes, bytes, words and floats: each as three groups of four outputs."""
    rng = np.random.default_rng(2)
    layer = random_layer(rng, "conv2d", (2, 3, 5, 12), encoding, grid, groups=3, padding="same")
    check(layer, inputs(rng, (1, 4, 5, 15)))


@pytest.mark.parametrize("grid", ["uniform3_no_zero", "planes2", "float"])
def test_a_group_that_is_dropped(grid):
    rng = np.random.default_rng(3)
    layer = random_layer(rng, "conv2d", (1, 2, 4, 6), "uniform_no_zero", grid, groups=3)
    bits, codes = np.full(6, 4), rng.integers(0, 16, (1, 2, 4, 6)).astype(np.uint16)
    bits[2:4], codes[..., 2:4] = 0, 0
    layer = dataclasses.replace(
        layer, weight=dataclasses.replace(layer.weight, bits=bits, codes=codes)
    )
    x = inputs(rng, (2, 3, 4, 12))
    check(layer, x)
    only_bias = finish(layer, np.zeros(6)).astype(np.float32)[2:4]
    y = run(layer, x)[..., 2:4]
    np.testing.assert_array_equal(y, np.broadcast_to(only_bias, y.shape))


@pytest.mark.parametrize("grid", ["float", "uniform4", "uniform12", "planes2"])
@pytest.mark.parametrize(
    ("kernel", "window"),
    [
        ((1, 1), {"strides": (3, 2)}),
        ((1, 2), {"strides": (2, 1), "padding": ((1, 2), (0, 0))}),
        ((2, 1), {"strides": (3, 1), "dilations": (2, 1), "padding": "same"}),
        ((2, 2), {"strides": (4, 3), "dilations": (3, 1), "padding": ((2, 5), (0, 1))}),
        ((2, 1), {"strides": (3, 1), "input_dilations": (2, 1), "padding": ((1, 4), (0, 0))}),
        ((1, 1), {"strides": (5, 5), "input_dilations": (3, 1), "padding": ((0, 0), (2, 0))}),
    ],
)
def test_strides_that_leave_rows_out(kernel, window, grid):
    """Of heights from one row on, so that the last row is read and is not."""
    rng = np.random.default_rng(4)
    layer = random_layer(rng, "conv2d", (*kernel, 5, 4), "uniform_no_zero", grid, **window)
    for height in range(4, 12):
        check(layer, inputs(rng, (2, height, 5, 5)))


@pytest.mark.parametrize("multiplier", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 5, 16])
def test_depthwise_equals_keras(channels, multiplier):
    """With a padding that differs on all four sides."""
    rng = np.random.default_rng(channels)
    weight = random_weight(rng, "uniform", (3, 2, channels * multiplier))
    window = {"groups": channels, "strides": (2, 2), "padding": ((0, 1), (2, 3))}
    layer = PackedLayer("depthwise_conv2d", weight, FloatGrid(), **window)
    x = inputs(rng, (2, 6, 5, channels))
    kernel = weight.decode().reshape(3, 2, channels, multiplier)
    padded = np.pad(x, ((0, 0), (0, 1), (2, 3), (0, 0)))
    y = np.asarray(keras.ops.depthwise_conv(padded, kernel, (2, 2), "valid"))
    np.testing.assert_allclose(run(layer, x), y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_depthwise_of_every_encoding_and_grid(encoding, grid):
    rng = np.random.default_rng(5)
    window = {"groups": 3, "padding": ((1, 0), (0, 2)), "dilations": (1, 2), "strides": (2, 1)}
    layer = random_layer(rng, "depthwise_conv2d", (2, 2, 6), encoding, grid, **window)
    check(layer, inputs(rng, (1, 4, 5, 3)))


def test_a_whole_depthwise_result_by_hand():
    """Two channels, codes 0..3 worth -1, 0, 1, 2; inputs worth 10 and 30."""
    grid = UniformGrid(2, 0.0, 30.0, 0.0, 10.0, 0)
    weight = random_weight(np.random.default_rng(0), "uniform_tensor", (1, 2, 2))
    encoding = dataclasses.replace(
        weight.encoding, scale=f32([1]), zero=np.array([1], np.int32), origin=f32([0])
    )
    codes = np.array([[[0, 1], [2, 3]]], np.uint16)
    weight = dataclasses.replace(weight, codes=codes, bits=np.full(2, 2), encoding=encoding)
    layer = PackedLayer("depthwise_conv2d", weight, grid, groups=2, padding=((0, 0), (1, 0)))
    x = f32([[10, 30], [29, 11]]).reshape(1, 1, 2, 2)
    # Taps -1, 1 of channel 0 and 0, 2 of channel 1, over 0 10 30 and 0 30 10.
    np.testing.assert_array_equal(run(layer, x)[0, 0], [[10, 60], [20, 20]])


@pytest.mark.parametrize("op", ["conv2d", "depthwise_conv2d"])
@pytest.mark.parametrize("padding", ["same", "valid", ((1, 1), (2, 0))])
@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 4, 0), (0, 0, 0)])
def test_empty_axes(op, padding, shape):
    """An empty batch gives an empty batch; of an empty image only the padding is left."""
    rng = np.random.default_rng(6)
    kernel = (2, 2, 3, 4) if op == "conv2d" else (2, 2, 3, 1)
    layer = random_layer(rng, op, kernel, "uniform_no_zero", "uniform3_no_zero", padding=padding)
    x = np.zeros((*shape, 3), np.float32)
    if padding == "valid" and 0 in shape[1:]:
        with pytest.raises(ValueError, match="kernel of 2 fits into, got 0"):
            run(layer, x)
        return
    y = run(layer, x)
    added = {"same": (0, 0), "valid": (-1, -1)}.get(padding, (1, 1))
    assert y.shape == (shape[0], shape[1] + added[0], shape[2] + added[1], layer.out_channels)
    if 0 in shape[1:]:
        bias = finish(layer, np.zeros(layer.out_channels)).astype(np.float32)
        np.testing.assert_array_equal(y, np.broadcast_to(bias, y.shape))


@pytest.mark.parametrize("op", ["dense", "conv2d", "depthwise_conv2d"])
def test_an_axis_of_channels_that_is_empty_is_refused(op):
    kernel = {"dense": (3, 4), "conv2d": (1, 1, 3, 4), "depthwise_conv2d": (1, 1, 3, 1)}[op]
    layer = random_layer(np.random.default_rng(7), op, kernel, "uniform", "float")
    shape = (2, 0) if op == "dense" else (1, 2, 2, 0)
    with pytest.raises(ValueError, match=r"3 channels, got .* 0"):
        run(layer, np.zeros(shape))
