import keras
import numpy as np
import pytest
from dull import Dull
from keras import ops
from tiny import METHODS, batch, compiled, dense_model, inputs_like, predict

from kerasbits import lifecycle
from kerasbits.layers import QuantConv2D, QuantDense
from kerasbits.packed import FloatGrid, UniformGrid
from kerasbits.quantizers import BSQ, BitPruning, LeastSquaresBinary, Uniform

DENSE = [
    {"units": 4},
    {"units": 4, "use_bias": False, "activation": "tanh"},
    {"units": 2, "bias_initializer": "random_normal", "kernel_regularizer": "l2"},
]
CONV = [
    {"filters": 4, "kernel_size": 3},
    {"filters": 4, "kernel_size": (3, 2), "strides": (2, 1), "padding": "same"},
    {"filters": 4, "kernel_size": 2, "dilation_rate": 2, "use_bias": False},
    {"filters": 4, "kernel_size": 3, "groups": 2, "activation": "relu"},
    {"filters": 6, "kernel_size": 1, "bias_initializer": "random_normal"},
]
PAIRS = [
    *((QuantDense, keras.layers.Dense, kwargs, (6,)) for kwargs in DENSE),
    (QuantDense, keras.layers.Dense, DENSE[0], (3, 6)),
    *((QuantConv2D, keras.layers.Conv2D, kwargs, (8, 7, 4)) for kwargs in CONV),
]


def layer_of(quantizer, seed=0, inputs=None, **kwargs):
    keras.utils.set_random_seed(seed)
    layer = QuantDense(4, kernel_quantizer=quantizer, input_quantizer=inputs, name="fc", **kwargs)
    layer.build((None, 6))
    return layer


@pytest.mark.parametrize(("quant", "plain", "kwargs", "shape"), PAIRS)
def test_without_quantizers_it_is_the_plain_layer(quant, plain, kwargs, shape):
    x, _ = batch(shape)
    outputs, layers = [], []
    for cls in (plain, quant):
        keras.utils.set_random_seed(3)
        layers.append(cls(**kwargs, name="layer"))
        outputs.append(ops.convert_to_numpy(layers[-1](x)))
    np.testing.assert_array_equal(*outputs)
    config = layers[1].get_config()
    assert config.pop("kernel_quantizer") is None
    assert config.pop("input_quantizer") is None
    assert config.pop("quantizer_rate") == 1.0
    assert config == layers[0].get_config()
    assert [v.path for v in layers[1].variables] == [v.path for v in layers[0].variables]
    np.testing.assert_allclose(sum(layers[1].losses, 0.0), sum(layers[0].losses, 0.0))
    assert layers[1].hosts == {}
    assert layers[1].packed_kernel() is None
    assert layers[1].integer_kernel() is None
    assert layers[1].input_grid() == FloatGrid()
    np.testing.assert_array_equal(layers[1].quantized_kernel(), layers[0].kernel)


@pytest.mark.parametrize(("quant", "plain", "kwargs", "shape"), PAIRS)
def test_quantized_layer_is_the_plain_one_on_quantized_values(quant, plain, kwargs, shape):
    x, _ = batch(shape)
    keras.utils.set_random_seed(3)
    layer = quant(**kwargs, kernel_quantizer=Uniform(3), input_quantizer=Uniform(4))
    layer(x, training=True)  # the first batch sets the range
    grid = layer.input_grid()
    same = layer.plain_layer()
    assert type(same) is plain
    same.build((None, *shape))
    bias = [layer.bias] if layer.use_bias else []
    same.set_weights([layer.quantized_kernel(), *bias])
    want = same(grid.values(grid.codes(x)))
    # Compiled products of the grid may round in another order than NumPy's.
    np.testing.assert_allclose(layer(x), want, rtol=0, atol=1e-5)
    assert np.abs(predict(layer, x) - predict(same, x)).max() > 1e-3  # inputs are quantized


def test_channels_first_bias():
    layer = QuantConv2D(4, 3, data_format="channels_first", bias_initializer="random_normal")
    layer.build((None, 2, 5, 6))
    assert layer._shaped_bias().shape == (1, 4, 1, 1)
    assert layer._macs((None, 2, 5, 6), layer.kernel.shape) == 3 * 4 * 4 * 9 * 2


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (QuantDense(7, "relu", kernel_quantizer=Dull()), (None, 5), 35),
        (QuantDense(7, kernel_quantizer=Dull(), input_quantizer=Dull()), (None, 3, 5), 105),
        (QuantConv2D(4, 3, kernel_quantizer=Dull()), (None, 8, 8, 2), 36 * 9 * 2 * 4),
        (
            QuantConv2D(4, 3, 2, "same", groups=2, input_quantizer=Dull()),
            (None, 8, 8, 6),
            16 * 9 * 3 * 4,
        ),
    ],
)
def test_sites(layer, shape, macs):
    layer.build(shape)
    for role, host in layer.hosts.items():
        assert (host.site.role, host.site.name, host.site.macs) == (role, layer.name, macs)
    if "kernel" in layer.hosts:
        site = layer.hosts["kernel"].site
        assert (site.shape, site.channel_axis) == (tuple(layer.kernel.shape), -1)
    if "input" in layer.hosts:
        site = layer.hosts["input"].site
        assert (site.shape, site.channel_axis) == (shape[1:], None)


def two_layers(kernel, inputs):
    keras.utils.set_random_seed(1)
    quantizers = {"kernel_quantizer": kernel, "input_quantizer": inputs}
    conv = QuantConv2D(4, 3, strides=2, **quantizers, name="conv")
    fc = QuantDense(3, **quantizers, name="fc")
    return keras.Sequential([keras.Input((5, 5, 2)), conv, keras.layers.Flatten(), fc])


@pytest.mark.parametrize("mode", ["graph", "jit", "eager"])
@pytest.mark.parametrize("name", METHODS)
def test_one_step_of_fit(name, mode):
    method = METHODS[name]
    inputs = inputs_like(method)
    model = two_layers(method, inputs)
    x, y = batch((5, 5, 2))
    compiled(model, jit_compile=mode == "jit", run_eagerly=mode == "eager")
    before = {v.path: v.numpy() for v in model.trainable_variables}
    history = model.fit(x, y, epochs=1, batch_size=16, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    moved = {v.path: bool(np.any(v.numpy() != before[v.path])) for v in model.trainable_variables}
    for layer in (model.get_layer("conv"), model.get_layer("fc")):
        assert moved[layer.bias.path]
        if not method.owns_weight:
            assert moved[layer.kernel.path]
        for role, host in layer.hosts.items():
            specs = host.quantizer.variables(host.site)
            state = host.state()
            for spec_name, spec in specs.items():
                assert np.isfinite(state[spec_name]).all()
                assert spec.min is None or (state[spec_name] >= spec.min).all()
                assert spec.max is None or (state[spec_name] <= spec.max).all()
            # `latent` waits for freezing; everything else that is trained has a gradient.
            learned = {v.path for v in host.trainable_variables if v.name != "latent"}
            assert all(moved[path] for path in learned), (role, learned)
            assert bool(learned) == any(s.trainable for s in specs.values())
    lifecycle.freeze(model)
    if mode == "graph":  # compiled once more by XLA it says nothing new
        served = model.predict(x, verbose=0)
        np.testing.assert_allclose(served, predict(model, x), rtol=1e-4, atol=1e-4)


def test_a_replaced_kernel_is_never_trained():
    layer = layer_of(BSQ())
    assert not layer.kernel.trainable
    assert "kernel" not in {v.name for v in layer.trainable_variables}
    layer.trainable = False
    assert layer.trainable_variables == []
    layer.trainable = True  # as in fine-tuning
    assert not layer.kernel.trainable
    assert {v.name for v in layer.trainable_variables} >= {"bias", "positive", "negative"}
    plain = layer_of(BitPruning())
    plain.trainable = False
    plain.trainable = True
    assert plain.kernel.trainable


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", METHODS)
def test_mixed_precision(name, policy):
    """The kernel is quantized in float32, so that the codes are those that `encode` gives."""
    method = METHODS[name]
    x, _ = batch((40,))
    layer = QuantDense(
        8, kernel_quantizer=method, input_quantizer=inputs_like(method), dtype=policy
    )
    out = layer(x, training=True)
    assert keras.backend.standardize_dtype(out.dtype) == policy.removeprefix("mixed_")
    assert all(v.dtype == "float32" for v in layer.trainable_variables)
    for host in layer.hosts.values():
        host.assign(host.quantizer.freeze(host.state(), host.site))
    half = policy.removeprefix("mixed_")
    eye = QuantDense(8, kernel_quantizer=method, dtype=policy, use_bias=False)
    eye.build((None, 40))
    eye.kernel.assign(layer.kernel)
    eye.kernel_host.assign(layer.kernel_host.state())
    used = ops.cast(eye(np.eye(40, dtype=np.float32)), "float32")  # the kernel itself
    want = ops.cast(ops.cast(layer.quantized_kernel(), half), "float32")
    # One unit in the last place of the half type: eager products may round otherwise than NumPy's.
    unit = 2.0**-10 if half == "float16" else 2.0**-7
    np.testing.assert_allclose(used, want, rtol=unit)
    assert (ops.convert_to_numpy(used) == ops.convert_to_numpy(want)).mean() > 0.9


@pytest.mark.parametrize("name", ["bitpruning", "bsq"])
def test_fit_under_mixed_precision(name):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(dense_model(METHODS[name], Uniform(8)))
        x, y = batch()
        before = predict(model, x)
        history = model.fit(x, y, epochs=2, verbose=0)
        assert np.isfinite(history.history["loss"]).all()
        assert np.any(predict(model, x) != before)
    finally:
        keras.config.set_dtype_policy("float32")


def test_kernel_views():
    layer = layer_of(Uniform(3, "channel"))
    pack = layer.packed_kernel()
    assert pack.name == "fc"
    np.testing.assert_array_equal(layer.integer_kernel(), pack.codes)
    np.testing.assert_array_equal(layer.quantized_kernel(), pack.decode())
    step = np.abs(layer.kernel.numpy()).max(axis=0) / 3  # 2^(3-1) - 1 steps to the largest
    np.testing.assert_allclose(
        layer.quantized_kernel(), np.rint(layer.kernel.numpy() / step) * step, atol=1e-6
    )
    used = layer(np.eye(6, dtype=np.float32))
    np.testing.assert_allclose(used, layer.quantized_kernel(), atol=1e-6)


def test_input_grid():
    layer = layer_of(None, inputs=Uniform(2))
    with pytest.raises(ValueError, match=r"layer 'fc', input.*calibrate"):
        layer.input_grid()
    layer(np.float32([[0, 1, 2, 3, 1, 0]]), training=True)
    grid = layer.input_grid()
    assert isinstance(grid, UniformGrid)
    assert (grid.bits, grid.hi, grid.step, grid.zero) == (2, 3.0, 1.0, 0)


def test_reset_follows_a_new_kernel():
    layer = layer_of(Uniform(8))
    layer.kernel.assign(7 * layer.kernel)
    layer.reset_quantizers()
    np.testing.assert_allclose(
        layer.quantized_kernel(), layer.kernel, atol=np.abs(layer.kernel).max() / 127 / 2 * 1.001
    )


@pytest.mark.parametrize("bad", ["nonsense", 8, Uniform, {"bits": 3}])
def test_unknown_quantizer(bad):
    with pytest.raises(ValueError, match=r"expected a quantizer, one of the names .*bsq.* got"):
        QuantDense(3, kernel_quantizer=bad)


def test_names_and_configs_are_accepted():
    layer = QuantDense(3, kernel_quantizer="least_squares_binary", input_quantizer="uniform")
    assert layer.kernel_quantizer == LeastSquaresBinary()
    again = QuantDense.from_config(layer.get_config())
    assert (again.kernel_quantizer, again.input_quantizer) == (LeastSquaresBinary(), Uniform())


def test_wrong_role_names_the_layer():
    with pytest.raises(ValueError, match="layer 'fc', input_quantizer: expected"):
        layer_of(None, inputs=BSQ())


@pytest.mark.parametrize("name", METHODS)
def test_diverged_state_is_not_packed(name):
    layer = layer_of(METHODS[name], inputs=inputs_like(METHODS[name]))
    layer(batch()[0], training=True)
    for host in layer.hosts.values():
        host.assign(host.quantizer.freeze(host.state(), host.site))
    for host, hand_on in (
        (layer.kernel_host, layer.packed_kernel),
        (layer.input_host, layer.input_grid),
    ):
        trained = host.trainable_variables
        for variable in trained or [layer.kernel][: host is layer.kernel_host]:
            good = variable.numpy()
            variable.assign(np.full_like(good, np.nan))
            with pytest.raises(ValueError, match=r"layer 'fc', .*finite"):
                hand_on()
            variable.assign(good)
        hand_on()
