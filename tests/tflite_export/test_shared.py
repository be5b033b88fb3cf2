"""Layers and models used several times, structures of inputs and outputs, recurrent layers."""

import keras
import numpy as np
from exportable import images, lively_batch_norms
from operator_names import operator_names

import kerasbits as kb
from tflite_export import Interpreter, export, flatbuffer
from tflite_export.tflite_writer import packed_blobs

L = keras.layers


def exported(model, data, folder):
    """The quantized model, and names of operators and layers of its file."""
    lively_batch_norms(model)
    q = kb.quantize_model(model, kb.Uniform(4), kb.Uniform(8))
    kb.calibrate(q, [data] if isinstance(data, dict | list) else data)
    result = export(q, folder / "m.tflite", sample=data)
    assert result.max_error <= 1e-4
    content = result.path.read_bytes()
    return q, operator_names(content), sorted(packed_blobs(flatbuffer.read(content)))


def test_one_layer_on_two_sizes(tmp_path):
    keras.utils.set_random_seed(0)
    inputs, conv = keras.Input((8, 8, 2)), L.Conv2D(2, 3, padding="same", name="c")
    model = keras.Model(inputs, [conv(inputs), conv(L.AveragePooling2D(2)(inputs))])
    _, names, layers = exported(model, images(4, (8, 8, 2)), tmp_path)
    assert names.count("KerasbitsConv2D") == 2
    assert layers == ["c"]


def test_batch_norm_of_a_block_used_twice_is_folded(tmp_path):
    keras.utils.set_random_seed(0)
    conv = L.Conv2D(2, 3, padding="same", use_bias=False, name="c")
    norm = L.BatchNormalization(name="norm")
    block = keras.Sequential([keras.Input((8, 8, 2)), conv, norm, L.ReLU(6.0)], name="block")
    lively_batch_norms(block)
    inputs = keras.Input((8, 8, 2))
    model = keras.Model(inputs, block(block(inputs)))
    _, names, layers = exported(model, images(4, (8, 8, 2)), tmp_path)
    assert names == ["KerasbitsConv2D"] * 2
    assert layers == ["block/c"]


def test_two_batch_norms_behind_one_layer_stay(tmp_path):
    keras.utils.set_random_seed(0)
    inputs, conv = keras.Input((8, 8, 2)), L.Conv2D(2, 3, padding="same", name="c")
    x = L.BatchNormalization(name="one")(conv(inputs))
    model = keras.Model(inputs, L.BatchNormalization(name="two")(conv(x)))
    _, names, layers = exported(model, images(4, (8, 8, 2)), tmp_path)
    assert names.count("MUL") == 2
    assert layers == ["c"]


def test_one_model_inside_two_others_is_stored_once(tmp_path):
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((4,)), L.Dense(4, name="fc"), L.ReLU()], name="inner")
    outer = keras.Sequential([keras.Input((4,)), inner, L.Dense(4, name="top")], name="outer")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, outer(inputs) + inner(inputs))
    _, names, layers = exported(model, images(8, (4,)), tmp_path)
    assert layers == ["outer/inner/fc", "outer/top"]
    # The converter sees that both uses of the inner model compute the same.
    assert names.count("KerasbitsDense") in (2, 3)


def test_dictionaries_of_inputs_and_outputs(tmp_path):
    keras.utils.set_random_seed(0)
    z, a, dense = keras.Input((6,), name="zeta"), keras.Input((6,), name="alpha"), L.Dense(3)
    model = keras.Model({"zeta": z, "alpha": a}, {"last": dense(z), "first": L.Dense(2)(a)})
    data = {"zeta": images(8, (6,)), "alpha": images(8, (6,), seed=1)}
    q, _, _ = exported(model, data, tmp_path)
    tree = flatbuffer.read((tmp_path / "m.tflite").read_bytes())
    (signature,) = tree.signatureDefs
    graph = tree.subgraphs[0]
    assert [entry.name for entry in signature.inputs] == [b"alpha", b"zeta"]
    outputs = {entry.name: entry.tensorIndex for entry in signature.outputs}
    assert [outputs[b"first"], outputs[b"last"]] == list(graph.outputs)
    assert graph.tensors[outputs[b"first"]].name == b"first"
    found = Interpreter(tmp_path / "m.tflite").predict([data["alpha"], data["zeta"]])
    expected = q.predict(data, verbose=0)
    np.testing.assert_allclose(found[0], expected["first"], atol=1e-5)
    np.testing.assert_allclose(found[1], expected["last"], atol=1e-5)


def test_outputs_that_are_equal_or_inputs(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((6,), name="a"), keras.Input((5,), name="b")]
    y = L.Dense(2, name="fc")(inputs[0])
    data = [images(8, (6,)), images(8, (5,), seed=1)]
    q, _, _ = exported(keras.Model(inputs, [y, inputs[1], y]), data, tmp_path)
    found = Interpreter(tmp_path / "m.tflite").predict(data)
    for y, expected in zip(found, q.predict(data, verbose=0), strict=True):
        np.testing.assert_allclose(y, expected, atol=1e-5)


def test_masks_pass_barriers(tmp_path):
    keras.utils.set_random_seed(0)
    ids = keras.Input((6,), dtype="int32")
    x = L.Dropout(0.5)(L.Embedding(9, 4, mask_zero=True, name="words")(ids))
    model = keras.Model(ids, L.Dense(2, name="fc")(L.GlobalAveragePooling1D()(x)))
    data = np.random.default_rng(0).integers(0, 3, (8, 6)).astype(np.int32)
    q, _, layers = exported(model, data, tmp_path)
    assert layers == ["fc", "words"]
    found = Interpreter(tmp_path / "m.tflite").predict(data)
    np.testing.assert_allclose(found, q.predict(data, verbose=0), atol=1e-5)


def test_recurrent_layers_stay_float_in_a_file_of_one_sample(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3, 4)), L.LSTM(5), L.Dense(3, name="fc")])
    _, names, layers = exported(model, images(4, (3, 4)), tmp_path)
    assert "WHILE" in names
    assert layers == ["fc"]
    assert Interpreter(tmp_path / "m.tflite").batch == 1
