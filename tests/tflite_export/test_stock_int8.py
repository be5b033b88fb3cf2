"""Stock files that compute in integers: each layer within one code of the exact result."""

import keras
import numpy as np
import pytest
from exportable import frozen, images, lively_batch_norms
from stock_files_running import (
    RESOLVERS,
    Runner,
    code_differences,
    operators,
    relative_errors,
    small_mobilenet,
    small_resnet,
    written,
)

import kerasbits as kb

NETWORKS = {"resnet": small_resnet, "mobilenet": small_mobilenet}
DATA = images(16, (12, 12, 3), seed=1)

PAIRS = {
    "w4a8": (kb.Uniform(4, granularity="channel"), kb.Uniform(8)),
    "w8a4": (kb.Uniform(8), kb.Uniform(4)),
    "bsq": (kb.BSQ(bits=4), kb.Uniform(5, signed=True)),
    "bayesian_bits": (kb.BayesianBits(max_bits=8), kb.BayesianBits(max_bits=8)),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    model = NETWORKS[request.param]()
    lively_batch_norms(model)
    return model


@pytest.fixture(scope="module", params=PAIRS)
def file(request, network):
    """`(model, file in integers)`."""
    q = frozen(network, *PAIRS[request.param], DATA)
    return q, written(q, activations="int8", sample=DATA)


def test_every_layer_is_within_one_code(file):
    _, stock = file
    runner = Runner(stock.data)
    runner(DATA)
    found = code_differences(stock, runner)
    assert set(found) == set(stock.layers), "a layer does not compute in integers"
    assert max(found.values()) <= 1
    assert {s.container for s in stock.stored.values()} == {"INT8"}


def test_outputs_are_near_those_of_the_model(network):
    # Inputs of fewer bits would multiply the difference of one code.
    q = frozen(network, *PAIRS["w4a8"], DATA)
    stock = written(q, activations="int8", sample=DATA)
    expected = q.predict(DATA, verbose=0)
    for resolver in (RESOLVERS.AUTO, RESOLVERS.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
        found = Runner(stock.data, resolver, keep=False)(DATA)[0]
        assert np.median(relative_errors(found, expected)) < 0.03


def test_layers_that_follow_each_other_stay_in_integers():
    q = frozen(small_mobilenet(), *PAIRS["w4a8"], DATA)
    stock = written(q, activations="int8", sample=DATA)
    assert stock.inputs["filter"] == stock.outputs["expand"]
    assert stock.inputs["project"] == stock.outputs["filter"]
    # Both sides of the addition, and the output.
    assert operators(stock.data).count("DEQUANTIZE") == 3


def test_max_pooling_and_flattening_stay_in_integers():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(inputs)
    x = layers.Flatten()(layers.MaxPooling2D()(x))
    model = keras.Model(inputs, layers.Dense(5, name="dense")(x))
    q = frozen(model, *PAIRS["w4a8"], DATA)
    stock = written(q, activations="int8", sample=DATA)
    assert operators(stock.data) == [
        "MINIMUM",
        "QUANTIZE",
        "CONV_2D",
        "MAX_POOL_2D",
        "RESHAPE",
        "FULLY_CONNECTED",
        "DEQUANTIZE",
    ]
    expected = q.predict(DATA, verbose=0)
    assert relative_errors(Runner(stock.data)(DATA)[0], expected).max() < 0.02


def test_few_codes_are_cut_where_int8_has_more():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, name="conv")(inputs)
    model = keras.Model(inputs, layers.Conv2D(4, 3, name="next")(x))
    q = frozen(model, kb.Uniform(8), kb.Uniform(3, signed=True), DATA)
    stock = written(q, activations="int8", sample=DATA)
    runner = Runner(stock.data)
    runner(DATA)
    codes = np.unique(runner.tensor(stock.inputs["next"][0]))
    assert codes.min() == -128
    assert codes.max() == -128 + 6, "a 3-bit signed grid has 7 levels"
    assert operators(stock.data).count("MINIMUM") == 2


def test_padding_is_the_zero_point():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((12, 8))
    model = keras.Model(
        inputs, layers.Conv1D(8, 3, padding="causal", dilation_rate=2, name="conv")(inputs)
    )
    data = images(8, (12, 8)) + 3.0
    q = frozen(model, kb.Uniform(8), kb.Uniform(8), data)
    stock = written(q, activations="int8", sample=data)
    expected = q.predict(data, verbose=0)
    assert stock.stored["conv"].container == "INT8"
    assert relative_errors(Runner(stock.data)(data)[0], expected).max() < 0.01


def test_layers_that_cannot_stay_floats_with_a_note():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="table")(inputs)
    x = layers.Conv2D(8, 3, activation="relu", name="offset")(x)
    x = layers.Conv2D(8, 3, activation="relu", name="plain")(x)
    model = keras.Model(inputs, layers.Conv2D(8, 3, name="whole")(x))
    rules = {
        "table": kb.Rule(kb.Uniform(4), kb.APoT(4)),
        "offset": kb.Rule(kb.BitPruning(bits=4.0), kb.Uniform(8)),
        "plain": kb.Rule(kb.Uniform(4), None),
    }
    q = frozen(model, *PAIRS["w4a8"], DATA, rules=rules)
    stock = written(q, activations="int8", sample=DATA)
    notes = {path: stored.note for path, stored in stock.stored.items()}
    assert "inputs are on no grid" in notes["table"]
    assert "kernel is on no symmetric grid" in notes["offset"]
    assert "inputs are on no grid" in notes["plain"]
    assert "integer operators" in notes["whole"]
    runner = Runner(stock.data)
    expected = q.predict(DATA, verbose=0)
    assert relative_errors(runner(DATA)[0], expected).max() < 0.02
    assert set(code_differences(stock, runner)) == {"whole"}


def test_shared_layers_have_one_output_grid():
    keras.utils.set_random_seed(0)
    shared = keras.layers.Conv2D(8, 3, padding="same", name="shared")
    inputs = keras.Input((6, 6, 8))
    model = keras.Model(inputs, shared(keras.layers.ReLU()(shared(inputs))))
    data = images(8, (6, 6, 8))
    q = frozen(model, kb.Uniform(4), kb.Uniform(8), data)
    stock = written(q, activations="int8", sample=data)
    runner = Runner(stock.data)
    runner(data)
    assert len({runner.parameters(tensor) for tensor in stock.outputs["shared"]}) == 1
    assert max(code_differences(stock, runner).values()) <= 1


def test_every_sample_counts_for_the_ranges():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,), batch_size=3)
    model = keras.Model(inputs, keras.layers.Dense(3, name="dense")(inputs))
    q = frozen(model, *PAIRS["w4a8"], images(9, (4,)))
    few, last = images(40, (4,)) * 0.01, images(1, (4,))
    stock = written(q, activations="int8", sample=np.concatenate([few, last]))
    runner = Runner(stock.data)
    y = runner(np.repeat(last, 3, axis=0))[0]
    assert relative_errors(y, q.predict(np.repeat(last, 3, axis=0), verbose=0)).max() < 0.02
    scale, _ = runner.parameters(stock.outputs["dense"][0])
    assert scale * 255 < 1.2 * (max(y.max(), 0) - min(y.min(), 0)), "wider than the outputs"


def test_sample_sets_the_ranges_and_must_fit():
    q = frozen(small_mobilenet(), *PAIRS["w4a8"], DATA)
    narrow = written(q, activations="int8", sample=0.01 * DATA)
    assert narrow.data != written(q, activations="int8", sample=DATA).data
    assert written(q, activations="int8").data == written(q, activations="int8").data
    with pytest.raises(ValueError, match=r"expected shape \(samples, 12, 12, 3\)"):
        written(q, activations="int8", sample=DATA[:, :5])
