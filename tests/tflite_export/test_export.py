"""Every method, exported and run in the stock interpreter, against the Keras model."""

import collections

import keras
import numpy as np
import pytest
from exportable import PAIRS, SHAPE, frozen, images, lively_batch_norms, network
from operator_names import operator_names

import kerasbits as kb
from tflite_export import Interpreter, export, flatbuffer
from tflite_export.blob.writer import read_blob, section_sizes
from tflite_export.tflite_writer import packed_blobs


@pytest.fixture(scope="module")
def float_model():
    return network()


@pytest.fixture(scope="module", params=PAIRS, ids=str)
def exported(request, float_model, tmp_path_factory):
    """One exported model a pair of quantizers: `(model, result, blobs by layer)`."""
    q = frozen(float_model, *PAIRS[request.param])
    path = tmp_path_factory.mktemp("files") / f"{request.param}.tflite"
    result = export(q, path, sample=images())
    return q, result, packed_blobs(flatbuffer.read(path.read_bytes()))


def test_file_gives_the_predictions_of_the_model(exported):
    q, result, _ = exported
    x = images(12, seed=5)
    expected = q.predict(x, verbose=0)
    found = Interpreter(result.path).predict(x)
    assert found.shape == expected.shape
    # Softmax outputs: an input code that falls on the other side of a tie moves them by less.
    assert np.abs(found - expected).max() < 0.02
    error = np.abs(found - expected).max(axis=1) / np.abs(expected).max(axis=1)
    assert np.median(error) <= 1e-4  # float32 sums in the model, exact integers in the file
    assert result.max_error <= 1e-4


def test_file_holds_the_codes_of_the_model(exported):
    q, _, blobs = exported
    assert set(blobs) == {"first", "dilated", "valid", "hidden", "last"}
    for name, blob in blobs.items():
        layer, stored = q.get_layer(name), read_blob(blob)
        packed = layer.packed_kernel()
        if packed is None:
            np.testing.assert_array_equal(stored.weight.decode(), layer.quantized_kernel())
            continue
        np.testing.assert_array_equal(stored.weight.codes, packed.codes)
        np.testing.assert_array_equal(stored.weight.bits, packed.bits)
        np.testing.assert_array_equal(stored.weight.decode(), packed.decode())


def test_report_gives_the_bytes_in_the_file(exported):
    q, result, blobs = exported
    in_file = sum(section_sizes(blob).get("codes", 0) for blob in blobs.values())
    assert kb.report(q).weight_bytes == result.weight_bytes == in_file


def test_weights_take_no_more_than_their_bits(exported):
    q, _, blobs = exported
    rows = kb.report(q).rows
    bits = sum(row.bits * row.weights for row in rows)
    parts = ("codes", "scale", "offset", "zero", "levels", "channel_bits")
    found = sum(section_sizes(blob).get(part, 0) for blob in blobs.values() for part in parts)
    assert found <= 1.02 * bits / 8 + 4096


def test_pruned_channels_take_no_space(float_model, tmp_path):
    q = frozen(float_model, *PAIRS["bayesian_bits"])
    result = export(q, tmp_path / "m.tflite", sample=images())
    rows = {row.name: row for row in kb.report(q).rows}
    assert rows["first"].dropped_channels == 3
    kept = next(layer for layer in result.layers if layer.name == "first")
    assert kept.code_bytes == 8 * -(-5 * 27 // 64) * 8  # 5 of 8 channels, 8 bits, 27 weights


def test_same_model_gives_same_bytes(float_model, tmp_path):
    q = frozen(float_model, *PAIRS["bitpruning"])
    a = export(q, tmp_path / "a.tflite", verify=False)
    b = export(q, tmp_path / "b.tflite", sample=images())
    assert a.path.read_bytes() == b.path.read_bytes()
    q.save(tmp_path / "q.keras")
    again = keras.models.load_model(tmp_path / "q.keras")
    c = export(again, tmp_path / "c.tflite", verify=False)
    assert a.path.read_bytes() == c.path.read_bytes()


def test_model_is_not_changed(float_model, tmp_path):
    q = frozen(float_model, *PAIRS["uniform4"])
    before, config = q.get_weights(), q.get_config()
    outputs = q.predict(images(), verbose=0)
    export(q, tmp_path / "m.tflite", sample=images())
    assert q.get_config() == config
    for a, b in zip(before, q.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(q.predict(images(), verbose=0), outputs)


def test_shared_and_nested_layers(tmp_path):
    keras.utils.set_random_seed(0)
    block = keras.Sequential(
        [
            keras.Input((9, 9, 4)),
            keras.layers.Conv2D(4, 3, padding="same", name="conv"),
            keras.layers.ReLU(),
        ],
        name="block",
    )
    inputs = keras.Input(SHAPE)
    x = block(block(keras.layers.Conv2D(4, 1, name="_stem")(inputs)))
    outputs = keras.layers.Dense(3, name="head")(keras.layers.GlobalAveragePooling2D()(x))
    q = frozen(keras.Model(inputs, outputs), kb.Uniform(4), kb.Uniform(6))
    result = export(q, tmp_path / "m.tflite", sample=images())
    blobs = packed_blobs(flatbuffer.read(result.path.read_bytes()))
    assert set(blobs) == {"_stem", "block/conv", "head"}
    tree = flatbuffer.read(result.path.read_bytes())
    uses = [op.inputs[1] for op in tree.subgraphs[0].operators if len(op.inputs) == 2]
    assert len(uses) != len(set(uses)), "the shared layer must be used twice and stored once"


def test_inputs_and_outputs_keep_the_order_of_the_model(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((n,), name=name) for n, name in ((4, "zeta"), (4, "alpha"), (3, "mid"))]
    a = keras.layers.Dense(5, name="a")(inputs[0])
    b = keras.layers.Dense(5, name="b")(inputs[1])
    c = keras.layers.Concatenate()([keras.layers.Dense(2, name="c")(inputs[2]), a])
    model = keras.Model(inputs, [b, c, a])
    data = [images(8, (n,), seed=n + i) for i, n in enumerate((4, 4, 3))]
    q = kb.quantize_model(model, kb.Uniform(4), kb.Uniform(8))
    kb.calibrate(q, [data])
    result = export(q, tmp_path / "m.tflite", sample=data)
    found = Interpreter(result.path).predict(data)
    for y, expected in zip(found, q.predict(data, verbose=0), strict=True):
        np.testing.assert_allclose(y, expected, atol=1e-5)


def test_application_model(tmp_path):
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=7)
    lively_batch_norms(model)
    data = images(8, (32, 32, 3))
    q = frozen(model, kb.Uniform(4), kb.Uniform(8), data)
    result = export(q, tmp_path / "m.tflite", sample=data[:2])
    assert len(result.layers) == 53
    names = collections.Counter(operator_names(result.path.read_bytes()))
    assert names.pop("ADD") == 10  # the branches; padding, batch norms and ReLU6 are in the layers
    assert names == {
        "KerasbitsConv2D": 35,
        "KerasbitsDepthwiseConv2D": 17,
        "KerasbitsDense": 1,
        "MEAN": 1,
        "SOFTMAX": 1,
    }
    assert result.weight_bytes == kb.report(q).weight_bytes
    assert result.file_bytes < 0.2 * 4 * model.count_params()


def test_batch_norm_that_cannot_be_folded_stays(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE)
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    y = keras.layers.BatchNormalization(name="after_relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="fc")(keras.layers.Flatten()(y)))
    lively_batch_norms(model)
    q = frozen(model, kb.Uniform(5), kb.Uniform(8))
    export(q, tmp_path / "m.tflite", sample=images())


@pytest.mark.parametrize("pair", ["bitpruning", "bsq", "bayesian_bits"])
def test_bits_that_are_not_frozen_are_refused(float_model, tmp_path, pair):
    kernel, _ = PAIRS[pair]
    q = kb.quantize_model(float_model, kernel)
    with pytest.raises(ValueError, match=r"layer 'first', kernel: expected frozen bits.*freeze"):
        export(q, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


def test_ranges_that_were_never_set_are_refused(float_model, tmp_path):
    q = kb.quantize_model(float_model, kb.Uniform(4), kb.Uniform(8))
    with pytest.raises(ValueError, match=r"layer 'first', input: expected a range.*calibrate"):
        export(q, tmp_path / "m.tflite")


def test_bad_arguments(float_model, tmp_path):
    q = frozen(float_model, *PAIRS["uniform4"])
    with pytest.raises(ValueError, match="expected at least one quantized layer"):
        export(float_model, tmp_path / "m.tflite")
    with pytest.raises(ValueError, match="expected a profile among"):
        export(q, tmp_path / "m.tflite", profile="small")
    with pytest.raises(ValueError, match=r"ending in \.tflite"):
        export(q, tmp_path / "m.bin")
    with pytest.raises(FileNotFoundError, match="expected an existing folder"):
        export(q, tmp_path / "missing" / "m.tflite")
    (tmp_path / "taken.tflite").mkdir()
    with pytest.raises(OSError, match="directory"):
        export(q, tmp_path / "taken.tflite", verify=False)
    with pytest.raises(ValueError, match="expected finite sample"):
        export(q, tmp_path / "m.tflite", sample=np.full((1, *SHAPE), np.nan))
    assert [p.name for p in tmp_path.iterdir()] == ["taken.tflite"]


def test_failed_export_leaves_the_older_file(float_model, tmp_path, monkeypatch):
    q = frozen(float_model, *PAIRS["uniform4"])
    path = tmp_path / "m.tflite"
    export(q, path, verify=False)
    before = path.read_bytes()

    def fail(*_):
        raise RuntimeError("no space left")

    monkeypatch.setattr("tflite_export.exporter.compare", fail)
    with pytest.raises(RuntimeError):
        export(q, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.tflite"]
