"""Transposed convolutions export as convolutions of a dilated input, whatever their padding."""

import keras
import numpy as np
import pytest
from geometries import exported_output
from tiny import predict

from kerasbits.layers import QuantConv1DTranspose, QuantConv2DTranspose
from kerasbits.quantizers import Uniform

X1, X2 = (
    np.random.default_rng(0).normal(size=s).astype(np.float32) for s in ((2, 5, 2), (2, 4, 3, 2))
)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_along_one_axis(size, stride, padding):
    """Kernels smaller and larger than the stride, odd and even, each output padding."""
    for extra in (None, *range(stride)):
        if padding == "same" and size % 2 == 0 and extra == 0:
            continue  # TensorFlow refuses an output this short
        keras.utils.set_random_seed(1)
        layer = QuantConv1DTranspose(
            3, size, stride, padding, output_padding=extra, bias_initializer="random_normal"
        )
        want = predict(layer, X1)
        got = exported_output(layer, X1)
        assert got.shape == want.shape == tuple(layer.compute_output_shape(X1.shape))
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "strides", "arguments"),
    [
        ((3, 4), (2, 3), {"padding": "same"}),
        ((2, 5), (3, 2), {"padding": "valid", "output_padding": (2, 0)}),
        ((5, 1), (1, 2), {"padding": "same", "output_padding": (0, 1)}),
        ((3, 2), (1, 1), {"padding": "same", "dilation_rate": (2, 3)}),
        ((2, 3), (1, 1), {"padding": "valid", "dilation_rate": 2}),
    ],
)
def test_rows_and_columns_differ(size, strides, arguments):
    keras.utils.set_random_seed(1)
    layer = QuantConv2DTranspose(3, size, strides, kernel_quantizer=Uniform(4), **arguments)
    want = predict(layer, X2)
    np.testing.assert_allclose(exported_output(layer, X2), want, rtol=0, atol=1e-5)
    geometry = layer.geometry()
    assert (geometry.input_dilations, geometry.strides) == (strides, (1, 1))


def test_geometry_by_hand():
    """Stride 2, window 3, "same": 2n outputs. Of 2n + 1 possible ones the last is cut off."""
    layer = QuantConv1DTranspose(1, 3, 2, "same")
    layer.build((None, 4, 1))
    layer.kernel.assign(np.reshape([1.0, 2.0, 3.0], (3, 1, 1)))
    geometry = layer.geometry()
    assert geometry.padding == ((0, 0), (2, 1))
    assert geometry.input_dilations == (1, 2)
    np.testing.assert_array_equal(layer.exported_kernel().decode().ravel(), [3, 2, 1])
    y = predict(layer, np.float32([[[1], [0], [0], [10]]]))
    np.testing.assert_array_equal(y.ravel(), [1, 2, 3, 0, 0, 0, 10, 20])


def test_codes_follow_their_values():
    """The exported codes are those of the Keras kernel with both axes turned around."""
    layer = QuantConv2DTranspose(3, (2, 3), kernel_quantizer=Uniform(4, "channel"))
    layer.build((None, 4, 4, 2))
    codes = layer.exported_kernel().codes
    assert codes.shape == (2, 3, 2, 3)
    for i, j, c, o in np.ndindex(*codes.shape):
        assert codes[i, j, c, o] == layer.integer_kernel()[1 - i, 2 - j, o, c]


@pytest.mark.parametrize("cls", [QuantConv1DTranspose, QuantConv2DTranspose])
def test_channels_first_is_refused_at_export_only(cls):
    layer = cls(3, 3, data_format="channels_first", kernel_quantizer=Uniform(4), name="first")
    layer.build((None, 2, *[5] * layer.rank))
    assert layer.kernel_host.site.macs == 5**layer.rank * 3**layer.rank * 6
    assert layer._shaped_bias().shape == (1, 3, *[1] * layer.rank)
    assert layer.packed_kernel().bits.shape == (3,)
    with pytest.raises(ValueError, match="layer 'first': expected channels_last"):
        layer.geometry()
