"""Every layer with one kernel: it is the plain layer, on quantized values, and exports as such."""

import keras
import numpy as np
import pytest
from geometries import CASES, exported_output
from keras import ops
from tiny import predict

from kerasbits import sites
from kerasbits.packed import FLOAT_BITS, FloatGrid, Floats
from kerasbits.quantizers import BayesianBits, BitPruning, Uniform

pytestmark = pytest.mark.parametrize("case", CASES, ids=str)


def hand_quantized(values, bits, axes=None):
    """Symmetric uniform levels up to the largest magnitude, the definition of `Uniform`."""
    step = np.abs(values).max(axis=axes, keepdims=axes is not None) / (2 ** (bits - 1) - 1)
    return np.rint(values / step) * step


def test_without_quantizers_it_is_the_plain_layer(case):
    x, outputs, built = case.inputs(), [], []
    for cls in (case.plain, case.quantized):
        keras.utils.set_random_seed(3)
        built.append(cls(**case.arguments, name="layer"))
        outputs.append(predict(built[-1], x))
    np.testing.assert_array_equal(*outputs)
    plain, layer = built
    config = layer.get_config()
    assert config.pop("kernel_quantizer") is None
    assert config.pop("input_quantizer") is None
    assert config.pop("quantizer_rate") == 1.0
    assert config == plain.get_config()
    assert [v.path for v in layer.variables] == [v.path for v in plain.variables]
    assert [v.shape for v in layer.variables] == [v.shape for v in plain.variables]
    assert layer.hosts == {}
    assert (layer.packed_kernel(), layer.integer_kernel()) == (None, None)
    assert layer.input_grid() == FloatGrid()
    exported = layer.exported_kernel()
    assert isinstance(exported.encoding, Floats)
    assert (exported.bits == FLOAT_BITS).all()


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_quantized_it_is_the_plain_layer_on_quantized_values(case, granularity):
    x = case.inputs()
    keras.utils.set_random_seed(3)
    layer = case.layer(Uniform(3, granularity), Uniform(4))
    layer(x, training=True)  # the first batch sets the range
    kernel = np.array(layer.kernel)
    wanted = hand_quantized(kernel, 3, case.reduced if granularity == "channel" else None)
    np.testing.assert_allclose(layer.quantized_kernel(), wanted, rtol=0, atol=1e-6)
    assert np.abs(wanted - kernel).max() > 1e-3
    plain = layer.plain_layer()
    assert type(plain) is case.plain
    plain.build((None, *case.shape))
    plain.set_weights([wanted] if layer.bias is None else [wanted, layer.bias])
    want = predict(plain, x if case.ids else hand_quantized(x, 4).astype(np.float32))
    np.testing.assert_allclose(predict(layer, x), want, rtol=0, atol=2e-5)
    assert np.abs(want - predict(plain, x)).max() > 1e-3 or case.ids


@pytest.mark.parametrize("kernel", [None, Uniform(3, "channel")], ids=["float", "quantized"])
def test_exported_form_computes_the_same(case, kernel):
    keras.utils.set_random_seed(3)
    layer, x = case.linear(kernel), case.inputs()
    want = predict(layer, x)
    exported, geometry = layer.exported_kernel(), layer.geometry()
    np.testing.assert_allclose(exported_output(layer, x), want, rtol=0, atol=1e-5)
    axis = {"embedding": 0}.get(geometry.op, len(exported.shape) - 1)
    assert exported.channel_axis % len(exported.shape) == axis
    assert exported.bits.shape == (exported.shape[axis],)
    assert len(exported.shape) == {"dense": 2, "conv2d": 4, "depthwise_conv2d": 3}.get(
        geometry.op, 2
    )


def test_site(case):
    layer = case.layer(Uniform(3), Uniform(4))
    layer.build((None, *case.shape))
    assert list(layer.hosts) == ["kernel", "input"][: 1 if case.ids else 2]
    for role, host in layer.hosts.items():
        assert (host.site.role, host.site.name, host.site.macs) == (role, "layer", case.macs)
    site = layer.kernel_host.site
    kernel = np.array(layer.kernel)
    assert site.prunable == (case.name not in ("DepthwiseConv1D", "DepthwiseConv2D", "Embedding"))
    assert site.channels * int(np.prod([kernel.shape[a] for a in case.reduced])) == kernel.size
    if not case.ids:
        site = layer.input_host.site
        assert (site.shape, site.channel_axis) == (case.shape, None)


def test_each_channel_has_its_own_bits(case):
    """Widths that differ between channels reach the values of just these channels."""
    layer = case.layer(BitPruning(granularity="channel"))
    layer.build((None, *case.shape))
    host = layer.kernel_host
    bits = 2.0 + np.arange(host.site.channels)
    host.assign({"bits": bits})
    host.assign(host.quantizer.freeze(host.state(), host.site))
    packed = layer.packed_kernel()
    np.testing.assert_array_equal(packed.bits, bits)
    codes = np.moveaxis(layer.exported_kernel().codes, layer.exported_kernel().channel_axis, 0)
    for b, channel in zip(bits, codes, strict=True):
        assert channel.max() == 2**b - 1  # the range of a channel is that of its values
    np.testing.assert_array_equal(layer.integer_kernel().ravel(), packed.codes.ravel())
    np.testing.assert_array_equal(layer.exported_kernel().bits, packed.bits)


def test_dropped_channels_are_zero(case):
    layer = case.linear(BayesianBits(max_bits=8))
    layer.build((None, *case.shape))
    if layer.bias is not None:
        layer.bias.assign(0 * layer.bias)
    host = layer.kernel_host
    assert ("phi_prune" in host.state()) == host.site.prunable
    if not host.site.prunable:
        return
    host.assign({"phi_prune": np.where(np.arange(host.site.channels) == 1, -4.0, 3.0)})
    host.assign(host.quantizer.freeze(host.state(), host.site))
    y = np.abs(predict(layer, case.inputs()))
    zero = np.all(y == 0, axis=tuple(range(y.ndim - 1)))
    np.testing.assert_array_equal(np.flatnonzero(zero), [1])
    np.testing.assert_array_equal(np.flatnonzero(layer.exported_kernel().bits == 0), [1])


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(case, policy):
    if case.name == "Conv2DTranspose" and "dilation_rate" in case.arguments:
        pytest.skip("TensorFlow has no such operation for the CPU")
    keras.utils.set_random_seed(3)
    layer, x = case.layer(Uniform(3), dtype=policy), case.inputs()
    y = layer(x, training=True)
    half = policy.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(y.dtype) == half
    assert all(v.dtype == "float32" for v in layer.weights)
    wide = case.plain(**case.arguments)
    wide.build((None, *case.shape))
    wide.set_weights([layer.quantized_kernel(), *([] if layer.bias is None else [layer.bias])])
    want = predict(wide, x)
    tolerance = 0.01 if half == "float16" else 0.06  # a dozen roundings
    assert np.abs(ops.cast(y, "float32") - want).max() < tolerance * max(np.abs(want).max(), 1)


def test_copying_weights_starts_the_quantizers_anew(case):
    keras.utils.set_random_seed(5)
    plain = case.plain(**case.arguments)
    plain.build((None, *case.shape))
    plain.set_weights([3 * w for w in plain.get_weights()])
    layer = case.layer(Uniform(8))
    layer.build((None, *case.shape))
    layer.copy_from(plain)
    kernel = np.array(plain.weights[0])
    assert np.abs(layer.quantized_kernel() - kernel).max() <= np.abs(kernel).max() / 127 / 2 * 1.001
    np.testing.assert_array_equal(layer.weights[0], kernel)
    if layer.bias is not None:
        np.testing.assert_array_equal(layer.bias, plain.bias)


def test_errors_name_the_layer(case):
    layer = case.layer(Uniform(3), name="mine")
    layer.build((None, *case.shape))
    layer.kernel.assign(np.full(layer.kernel.shape, np.nan))
    with pytest.raises(ValueError, match=r"layer 'mine', kernel: .*finite"):
        layer.exported_kernel()
    assert [p.host.site.name for p in sites.places(keras.Sequential([layer]))] == ["mine"]
