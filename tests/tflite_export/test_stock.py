"""Stock files of every method, in floats, against the Keras model, without any delegate of ours."""

import keras
import numpy as np
import pytest
from exportable import PAIRS, SHAPE, frozen, images, lively_batch_norms, network
from stock_files_running import (
    RESOLVERS,
    Runner,
    constants,
    kernels,
    operators,
    relative_errors,
    tied_samples,
    written,
)

import kerasbits as kb
from tflite_export import flatbuffer
from tflite_export.converter import convert
from tflite_export.stock.kernels import stock_kernel
from tflite_export.stock.operators import file_order

CONTAINERS = {
    "uniform2": "INT2",
    "uniform3": "INT4",
    "uniform4": "INT4",
    "uniform5": "INT8",
    "uniform8": "INT8",
    "uniform_few_bit_inputs": "INT4",
    "bitpruning": "INT4",
    "bitpruning_one_bit": "INT2",
    "bitpruning_channels": "INT8",
    "ls1": "INT2",
    "ls2": "INT2",
    "lst": "INT2",
    "bsq": "INT8",
    "bsq_nine_bit_codes": "INT16",
    "apot3": "INT4",
    "apot4": "INT4",
    "apot8": "INT16",
    "bayesian_bits": "INT8",
    "bayesian_bits_16": "INT16",
    "bayesian_bits_float": "FLOAT32",
    "float_kernels": "FLOAT32",
}
"""Type of the stored kernel of the largest layer."""

ALONE = ("uniform2", "bitpruning", "ls2", "apot4", "bsq_nine_bit_codes")
"""Pairs that also run without XNNPACK, and with two threads."""


@pytest.fixture(scope="module")
def float_model():
    return network()


@pytest.fixture(scope="module", params=PAIRS, ids=str)
def file(request, float_model):
    """`(name, model, stock file)`."""
    q = frozen(float_model, *PAIRS[request.param])
    return request.param, q, written(q)


def test_file_gives_the_predictions_of_the_model(file):
    name, q, stock = file
    x = images(12, seed=5)
    expected = q.predict(x, verbose=0)
    runs = [Runner(stock.data)]
    if name in ALONE:
        runs.append(Runner(stock.data, RESOLVERS.BUILTIN_WITHOUT_DEFAULT_DELEGATES))
        runs.append(Runner(stock.data, threads=2, keep=False))
    tied = None
    for runner in runs:
        found = runner(x)[0]
        tied = tied_samples(q, stock, runner, [x]) if tied is None else tied
        assert not tied.all()
        assert relative_errors(found, expected)[~tied].max() <= 1e-4
        assert np.isfinite(found).all()


def test_kernels_decode_to_those_of_the_model(file):
    _, q, stock = file
    # XNNPACK takes INT8 constants as they are.
    runner = Runner(stock.data, RESOLVERS.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    runner(images(1))
    for path, tensor in kernels(stock).items():
        layer = stock.layers[path]
        decoded = q.get_layer(path).quantized_kernel()
        np.testing.assert_array_equal(decoded, layer.weight.decode())
        gain = 1.0 if layer.multiplier is None else layer.multiplier
        wanted = file_order(layer, (decoded.astype(np.float64) * gain).astype(np.float32))
        found = runner.tensor(tensor)
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= 4 * np.spacing(np.abs(wanted).max())


def test_containers_are_the_narrowest(file):
    name, _, stock = file
    sizes = {path: layer.weight.codes.size for path, layer in stock.layers.items()}
    largest = max(sizes, key=sizes.get)
    if name in CONTAINERS:
        assert stock.stored[largest].container == CONTAINERS[name]
    for path, stored in stock.stored.items():
        bits = int(stock.layers[path].weight.bits.max())
        if stored.container != f"INT{bits}" and bits != 32:
            assert stored.note, path
        terms = stock_kernel(stock.layers[path]).terms
        assert stored.code_bytes == sum(t.code_bytes for t in terms) or not terms
    found = [t.container for layer in stock.layers.values() for t in stock_kernel(layer).terms]
    assert constants(stock.data) == sorted(found)


def test_only_builtin_operators_and_never_a_hybrid_one(file):
    _, _, stock = file
    assert "CUSTOM" not in operators(stock.data)
    tree = flatbuffer.read(stock.data)
    graph = tree.subgraphs[0]
    for op in graph.operators:
        types = {graph.tensors[i].type for i in op.inputs if i >= 0}
        if len(op.inputs) == 3:
            assert types == {0}, "a layer must read floats only"
    assert flatbuffer.has_checksum(tree)
    used = {int(i) for op in graph.operators for i in [*op.inputs, *op.outputs]}
    assert used | set(graph.inputs.tolist()) == set(range(len(graph.tensors)))


def test_narrowest_type_can_be_chosen(float_model):
    q = frozen(float_model, *PAIRS["uniform2"])
    x = images(4)
    expected = q.predict(x, verbose=0)
    for narrowest, container in ((2, "INT2"), (4, "INT4"), (8, "INT8")):
        stock = written(q, narrowest=narrowest)
        assert stock.stored["dilated"].container == container
        assert relative_errors(Runner(stock.data)(x)[0], expected).max() <= 1e-4
    with pytest.raises(ValueError, match=r"narrowest among \(2, 4, 8\), got 3"):
        written(q, narrowest=3)
    with pytest.raises(ValueError, match=r"activations among .* got 'int4'"):
        written(q, activations="int4")


def test_same_model_gives_same_bytes_and_is_not_changed(float_model):
    q = frozen(float_model, *PAIRS["bitpruning"])
    before = [w.copy() for w in q.get_weights()]
    assert written(q).data == written(q).data
    for a, b in zip(before, q.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_smaller_than_the_float_file():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 8))])
    for index in range(3):
        model.add(layers.Conv2D(32, 3, padding="same", activation="relu", name=f"conv{index}"))
    whole = len(convert(model))
    for name, share in (("uniform2", 0.15), ("uniform4", 0.22), ("apot4", 0.27), ("ls2", 0.25)):
        q = frozen(model, *PAIRS[name], data=images(8, (8, 8, 8)), rules={})
        assert len(written(q).data) < share * whole, name


def test_padding_adds_nothing_where_the_grid_has_no_zero():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((6, 6, 8))
    x = layers.Conv2D(16, 3, padding="same", name="conv")(inputs)
    model = keras.Model(inputs, layers.Conv2D(16, 3, padding="same", strides=2, name="next")(x))
    data = images(8, (6, 6, 8))
    for pair in (kb.LeastSquaresBinary("ls1"), kb.BitPruning(bits=2.0)):
        q = kb.quantize_model(model, kb.Uniform(4), pair)
        kb.calibrate(q, data)
        kb.freeze(q)
        stock = written(q)
        assert not (
            stock.layers["conv"].grid.values(np.arange(4 if "Pr" in str(pair) else 2)) == 0
        ).any()
        runner = Runner(stock.data)
        found, expected = runner(data)[0], q.predict(data, verbose=0)
        tied = tied_samples(q, stock, runner, [data])
        assert relative_errors(found, expected)[~tied].max() <= 1e-5
        assert not tied.all()


def test_negative_gammas_change_signs_of_the_integers():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(16, 3, use_bias=False, name="conv")(inputs)
    model = keras.Model(inputs, layers.BatchNormalization(name="norm")(x))
    lively_batch_norms(model)
    q = frozen(model, kb.Uniform(4, granularity="channel"), kb.Uniform(8))
    stock = written(q)
    gain = stock.layers["conv"].multiplier
    assert (gain < 0).any()
    assert (gain > 0).any()
    assert stock.stored["conv"].container == "INT4"
    x = images(4)
    found, expected = Runner(stock.data)(x)[0], q.predict(x, verbose=0)
    assert relative_errors(found, expected).max() <= 1e-5


def test_layers_that_share_an_input_share_its_codes():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((6, 6, 4))
    a = layers.Conv2D(8, 3, padding="same", name="a")(inputs)
    b = layers.Conv2D(8, 3, padding="same", name="b")(inputs)
    model = keras.Model(inputs, layers.Add()([a, b]))
    q = frozen(model, kb.Uniform(4), kb.Uniform(8), data=images(8, (6, 6, 4)))
    assert operators(written(q).data).count("QUANTIZE") == 1


def test_shared_layers_are_stored_once():
    keras.utils.set_random_seed(0)
    shared = keras.layers.Conv2D(8, 3, padding="same", name="shared")
    inputs = keras.Input((6, 6, 8))
    model = keras.Model(inputs, shared(keras.layers.ReLU()(shared(inputs))))
    data = images(8, (6, 6, 8))
    q = frozen(model, kb.Uniform(4), kb.Uniform(8), data=data)
    stock = written(q)
    assert constants(stock.data) == ["INT4"]
    assert len(stock.inputs["shared"]) == len(set(stock.inputs["shared"])) == 2
    found, expected = Runner(stock.data)(data)[0], q.predict(data, verbose=0)
    assert np.median(relative_errors(found, expected)) <= 1e-5
