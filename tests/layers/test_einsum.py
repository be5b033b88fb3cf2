"""Einsum layers that are matrix products: a dense core between two changes of axes."""

import keras
import numpy as np
import pytest
from geometries import exported_output
from keras import layers
from tiny import batch, compiled, predict

import kerasbits as kb
from kerasbits import sites
from kerasbits.layers import QuantEinsumDense
from kerasbits.layers.matrix_product import MatrixProduct
from kerasbits.quantizers import BSQ, Uniform

# Equation, output shape, bias axes, shape of a sample, shape of the matrix.
EQUATIONS = [
    ("ab,bc->ac", 4, "c", (5,), (5, 4)),
    ("abc,cd->abd", (None, 4), "d", (3, 5), (5, 4)),
    ("abc,cd->abd", (3, 4), "bd", (3, 5), (5, 4)),
    ("...x,xy->...y", 4, "y", (3, 2, 5), (5, 4)),
    ("ab...,bc->ac...", 4, "c", (5, 3, 2), (5, 4)),
    ("abc,cde->abde", (None, 2, 4), "de", (3, 5), (5, 8)),
    ("abc,cde->abde", (None, 2, 4), "ed", (3, 5), (5, 8)),
    ("abc,cde->abde", (None, 2, 4), "e", (3, 5), (5, 8)),
    ("abc,dce->aedb", (4, 2, 3), "ed", (3, 5), (5, 8)),
    ("abc,dce->aedb", (4, 2, 3), "b", (3, 5), (5, 8)),
    ("abcd,cde->abe", (None, 4), "e", (3, 2, 5), (10, 4)),
    ("abcd,dbe->ace", (2, 4), "ce", (3, 2, 5), (15, 4)),
    ("abc,cd->adb", (4, None), "d", (3, 5), (5, 4)),
    ("abc,bd->acd", (None, 4), None, (3, 5), (3, 4)),
    ("abc,bc->a", (), None, (3, 5), (15, 1)),
]
every_equation = pytest.mark.parametrize(
    ("equation", "output_shape", "bias_axes", "shape", "matrix"), EQUATIONS
)
EVERYTHING = {
    "activation": "softmax",
    "bias_initializer": "random_normal",
    "kernel_regularizer": "l2",
    "bias_regularizer": "l1",
    "kernel_constraint": keras.constraints.MaxNorm(0.5, axis=0),
    "bias_constraint": keras.constraints.MaxNorm(0.05, axis=0),
}


def arguments(output_shape, bias_axes, **more):
    found = {"output_shape": output_shape, "bias_axes": bias_axes, **EVERYTHING, **more}
    return found if output_shape != () else {**found, "activation": None}


def hand_quantized(values, bits, axes=None):
    """Symmetric uniform levels up to the largest magnitude, the definition of `Uniform`."""
    step = np.abs(values).max(axis=axes, keepdims=axes is not None) / (2 ** (bits - 1) - 1)
    return (np.rint(values / step) * step).astype(np.float32)


@every_equation
def test_without_quantizers_it_is_the_plain_layer(equation, output_shape, bias_axes, shape, matrix):
    """Values, first weights, penalties, and what a step of training makes of the weights."""
    x, outputs, built = batch(shape)[0], [], []
    for cls in (layers.EinsumDense, QuantEinsumDense):
        keras.utils.set_random_seed(3)
        built.append(cls(equation, **arguments(output_shape, bias_axes), name="layer"))
        outputs.append(predict(built[-1], x))
    np.testing.assert_allclose(*outputs, rtol=0, atol=1e-6)
    plain, layer = built
    config = layer.get_config()
    assert config.pop("kernel_quantizer") is None
    assert config.pop("input_quantizer") is None
    assert config.pop("quantizer_rate") == 1.0
    assert config == plain.get_config()
    assert layer.core.kernel.shape == matrix
    np.testing.assert_array_equal(layer.kernel, plain.kernel)
    np.testing.assert_array_equal(layer.quantized_kernel(), plain.kernel)
    np.testing.assert_allclose(sum(layer.losses, 0.0), sum(plain.losses, 0.0), rtol=1e-5)
    for one in built:
        model = keras.Sequential([keras.Input(shape), one])
        model.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=True, jit_compile=False)
        model.fit(x, np.full(outputs[0].shape, 2.0), verbose=0, shuffle=False)
    np.testing.assert_allclose(layer.kernel, plain.kernel, rtol=0, atol=1e-5)
    if bias_axes:
        ours, theirs = np.ravel(layer.bias), np.ravel(plain.bias)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@every_equation
def test_quantized_it_is_the_plain_layer_on_quantized_values(
    equation, output_shape, bias_axes, shape, matrix, granularity
):
    x, _ = batch(shape)
    keras.utils.set_random_seed(3)
    layer = QuantEinsumDense(
        equation,
        **arguments(output_shape, bias_axes),
        kernel_quantizer=Uniform(3, granularity),
        input_quantizer=Uniform(4),
    )
    layer(x, training=True)  # the first batch sets the range
    _, w, y = equation.replace("->", ",").split(",")
    summed = tuple(i for i, c in enumerate(w) if c not in y)
    kernel = hand_quantized(np.array(layer.kernel), 3, summed if granularity == "channel" else None)
    np.testing.assert_allclose(layer.quantized_kernel(), kernel, rtol=0, atol=1e-6)
    plain = layer.plain_layer()
    plain.build((None, *shape))
    bias = [] if bias_axes is None else [np.reshape(layer.bias, plain.bias.shape)]
    plain.set_weights([kernel, *bias])
    want = predict(plain, hand_quantized(x, 4))
    np.testing.assert_allclose(predict(layer, x), want, rtol=0, atol=2e-5)
    step = layer.packed_kernel().encoding.scale
    codes = layer.integer_kernel()
    assert (codes.shape, codes.dtype) == (kernel.shape, np.uint16)
    if granularity == "tensor":
        np.testing.assert_allclose((codes.astype(float) - 3) * step[0], kernel, rtol=0, atol=1e-6)


@every_equation
def test_functional_form(equation, output_shape, bias_axes, shape, matrix):
    x, _ = batch(shape)
    layer = QuantEinsumDense(
        equation, **arguments(output_shape, bias_axes), kernel_quantizer=Uniform(3)
    )
    want = predict(layer, x)
    model = layer.as_functional()
    assert sum(inner is layer.core for inner in model.layers) == 1
    np.testing.assert_allclose(predict(model, x), want, rtol=0, atol=1e-6)
    assert model.get_layer("core").geometry().op == "dense"
    layer.core.activation = keras.activations.linear
    rows = np.random.default_rng(0).normal(size=(2, matrix[0])).astype(np.float32)
    got = exported_output(layer.core, rows)
    np.testing.assert_allclose(got, predict(layer.core, rows), rtol=0, atol=1e-5)


@every_equation
def test_copies_and_files(equation, output_shape, bias_axes, shape, matrix, tmp_path):
    keras.utils.set_random_seed(4)
    inputs = keras.Input(shape)
    plain = layers.EinsumDense(equation, **arguments(output_shape, bias_axes), name="layer")
    model = keras.Model(inputs, plain(inputs))
    x, _ = batch(shape)
    quantized = kb.quantize_model(model, kernel=Uniform(12), inputs=Uniform(12), strict=True)
    kb.calibrate(quantized, x)
    np.testing.assert_allclose(predict(quantized, x), predict(model, x), rtol=0, atol=0.01)
    assert [row.name for row in kb.report(quantized).rows] == ["layer/core"]
    quantized.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(predict(again, x), predict(quantized, x))
    float_row = kb.report(model).rows[0]
    assert (float_row.weights, float_row.shape) == (np.prod(matrix), tuple(plain.kernel.shape))


@pytest.mark.parametrize(
    ("equation", "reason"),
    [
        ("abc,acd->abd", r"no label in all three tensors, got \['a'\]"),
        ("abc,bcd->abd", r"no label in all three tensors, got \['b'\]"),
        ("abc,cd->ad", r"each label in two tensors, got \['b'\] in one"),
        ("abc,cde->abd", r"each label in two tensors, got \['e'\] in one"),
        ("ab,cd->abcd", "a label of the input to sum over"),
        ("abb,bc->ac", "each label once in a tensor"),
        ("ab,ac->bc", "the first label, the batch"),
        ("abc,cd->bad", "the first label, the batch"),
        ("abc cd->abd", "an equation like 'abc,cd->abd'"),
        ("a,b", "an equation like"),
    ],
)
def test_other_equations_are_refused(equation, reason):
    with pytest.raises(ValueError, match=f"layer 'mine': expected .*{reason}"):
        QuantEinsumDense(equation, (None, 4), name="mine")


def test_other_equations_stay_float_in_a_model():
    inputs = keras.Input((3, 5))
    x = layers.EinsumDense("abc,bcd->abd", (3, 4), name="each")(inputs)  # a kernel for each b
    x = layers.EinsumDense("abc,cd->abd", (3, 4), name="all")(x)
    model = keras.Model(inputs, x)
    q = kb.quantize_model(model, kernel="uniform")
    assert type(q.get_layer("each")) is layers.EinsumDense
    assert type(q.get_layer("all")) is QuantEinsumDense
    assert [(r.name, r.method) for r in kb.report(q).rows] == [
        ("each", "float"), ("all/core", "Uniform"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"layer 'each'.*quantized form"):
        kb.quantize_model(model, kernel="uniform", strict=True)


def test_unknown_axes():
    """Two of them are fine in the layer; a functional model can merge axes around one only."""
    layer = QuantEinsumDense("abcd,cde->abe", (None, 4), kernel_quantizer=Uniform(3), name="mine")
    layer.build((None, None, 2, 5))
    assert layer.core.kernel_host.site.macs == 40
    for length in (3, 6):
        assert layer(np.ones((2, length, 2, 5), np.float32)).shape == (2, length, 4)
    inputs = keras.Input((None, 2, 5))
    model = compiled(keras.Model(inputs, keras.ops.mean(layer(inputs), 1)), run_eagerly=False)
    x, y = batch((3, 2, 5))
    before = layer.get_weights()[0]
    model.fit(x, y, verbose=0)
    assert np.any(layer.get_weights()[0] != before)
    with pytest.raises(ValueError, match="layer 'mine': expected one unknown axis at most"):
        layer.as_functional()
    simple = QuantEinsumDense("abc,cd->abd", (None, 4))
    simple.build((None, None, 5))
    assert simple.as_functional().output_shape == (None, None, 4)
    with pytest.raises(ValueError, match=r"layer 'mine': expected known sizes of \['b'\]"):
        QuantEinsumDense("abc,bd->acd", (5, 4), name="mine").build((None, None, 5))


def test_a_replaced_kernel_and_the_own_bias():
    layer = QuantEinsumDense(
        "abc,cde->abde", (None, 2, 4), bias_axes="e", kernel_quantizer=BSQ(bits=3), name="mine"
    )
    layer.build((None, 3, 5))
    assert layer.bias.shape == (4,)
    assert layer.core.bias is None
    assert not layer.core.kernel.trainable
    assert {v.path.split("/")[0] for v in layer.variables} == {"mine"}
    place = next(sites.places(keras.Sequential([layer])))
    assert (place.path, place.host.site.name) == ("mine/core", "mine/core")
    assert (place.host.site.shape, place.host.site.macs) == ((5, 8), 3 * 5 * 8)


def test_lora_has_no_quantized_form():
    plain = layers.EinsumDense("ab,bc->ac", 4, lora_rank=2)
    assert not QuantEinsumDense.accepts(plain)
    with pytest.raises(ValueError, match="layer 'mine': expected no lora_rank"):
        QuantEinsumDense("ab,bc->ac", 4, lora_rank=2, name="mine")


def test_axes_by_hand():
    terms = MatrixProduct.parse("...bc,dce->...edb", rank=4)
    assert len(terms.inputs) == 4
    assert terms.kept == terms.inputs[:2] + "b"
    assert (terms.contracted, terms.produced) == ("c", "ed")
    assert terms.kernel_order == (1, 2, 0)
