"""Files that were damaged after they were written: found, and the layer named with both values."""

import dataclasses

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from exportable import PAIRS, frozen, images, network

import kerasbits as kb
from tflite_export import VerificationError, export, flatbuffer
from tflite_export.blob.writer import read_blob, write_blob
from tflite_export.collect import collect
from tflite_export.tflite_writer import write_packed
from tflite_export.verification.compare import compare


@pytest.fixture(scope="module")
def good():
    """A model, what was collected, and its good file."""
    model = frozen(network(), *PAIRS["uniform4"])
    packed = collect(model)
    return model, packed, write_packed(model, packed)


def verified(good, tmp_path, change):
    """Compare the model with its file after `change(tree, blob tensors by layer)`."""
    model, packed, written = good
    tree = flatbuffer.read(written.data)
    tensors = {t.name.decode(): t for t in tree.subgraphs[0].tensors if t.name}
    change(tree, {name: tensors[name] for name in packed.layers})
    path = tmp_path / "m.tflite"
    path.write_bytes(flatbuffer.write(tree))
    return compare(model, packed, written, path, images(3))


def with_layer(name, **changes):
    """Replace parts of the layer in a file by functions of them."""

    def change(tree, tensors):
        buffer = tree.buffers[tensors[name].buffer]
        layer = read_blob(bytes(np.asarray(buffer.data, np.uint8)))
        new = {key: function(getattr(layer, key)) for key, function in changes.items()}
        blob = write_blob(dataclasses.replace(layer, **new))
        buffer.data = np.frombuffer(blob, np.uint8)

    return change


def flipped_code(weight):
    codes = weight.codes.copy()
    codes[1, 0, 3, 2] ^= 1
    return dataclasses.replace(weight, codes=codes)


def wrong_scale(weight):
    encoding = dataclasses.replace(weight.encoding, scale=weight.encoding.scale * 1.001)
    return dataclasses.replace(weight, encoding=encoding)


def test_the_untouched_file_passes(good, tmp_path):
    result = verified(good, tmp_path, lambda tree, tensors: None)
    assert result.layers == 5
    assert result.samples == 3 + 4
    assert result.max_error <= 1e-5


def test_flipped_code(good, tmp_path):
    code = int(good[2].layers["valid"].weight.codes[1, 0, 3, 2])
    message = (
        rf"layer 'valid': kernel code differs at \(1, 0, 3, 2\): the model has {code}, "
        rf"the file {code ^ 1}$"
    )
    with pytest.raises(VerificationError, match=message):
        verified(good, tmp_path, with_layer("valid", weight=flipped_code))


def test_wrong_scale(good, tmp_path):
    value = good[2].layers["hidden"].weight.decode()[0, 0]
    message = rf"layer 'hidden': kernel value differs at \(0, 0\): the model has {value}, the file"
    with pytest.raises(VerificationError, match=message):
        verified(good, tmp_path, with_layer("hidden", weight=wrong_scale))


def test_wrong_width(good, tmp_path):
    def wider(weight):
        return dataclasses.replace(weight, bits=weight.bits + 1)

    with pytest.raises(VerificationError, match=r"layer 'last': bits of channel differs at \(0,\)"):
        verified(good, tmp_path, with_layer("last", weight=wider))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"bias": lambda b: b + 0.01},
            r"layer 'hidden': output differs at \(\d+, \d+\): the model",
        ),
        ({"act_max": lambda _: 0.1}, r"layer 'hidden': output differs"),
        (
            {"grid": lambda g: dataclasses.replace(g, step=g.step * 1.01)},
            r"layer 'hidden': input code differs at \(\d+, \d+\) for x = .*: the model rounds to "
            r".*, the file to .* \(code \d+\)$",
        ),
    ],
)
def test_what_surrounds_the_kernel(good, tmp_path, changes, message):
    with pytest.raises(VerificationError, match=message):
        verified(good, tmp_path, with_layer("hidden", **changes))


def test_swapped_layers(good, tmp_path):
    def swap(tree, tensors):
        a, b = tensors["first"], tensors["dilated"]
        a.buffer, b.buffer = b.buffer, a.buffer
        a.shape, b.shape = b.shape, a.shape

    message = r"layer 'first': expected a kernel of shape \(3, 3, 3, 8\), got \(3, 3, 8, 8\)"
    with pytest.raises(VerificationError, match=f"{message}|cannot be run"):
        verified(good, tmp_path, swap)


def test_missing_layer(good, tmp_path):
    def rename(tree, tensors):
        tensors["valid"].name = b"invalid"

    with pytest.raises(VerificationError, match="layer 'valid': expected it in the file, got none"):
        verified(good, tmp_path, rename)


def test_operators_that_read_each_others_layers(tmp_path):
    """Each blob is right, but stands at the wrong operator: only the whole file shows it."""
    keras.utils.set_random_seed(0)
    dense = [keras.layers.Dense(6, name=name) for name in "ab"]
    inputs = keras.Input((6,))
    model = keras.Model(inputs, dense[1](keras.layers.ReLU()(dense[0](inputs))))
    q = frozen(model, kb.Uniform(4), kb.Uniform(8), images(8, (6,)))
    packed = collect(q)
    written = write_packed(q, packed)
    tree = flatbuffer.read(written.data)
    first, second = (op for op in tree.subgraphs[0].operators if len(op.inputs) == 2)
    blobs = first.inputs[1], second.inputs[1]
    first.inputs = np.array([first.inputs[0], blobs[1]], np.int32)
    second.inputs = np.array([second.inputs[0], blobs[0]], np.int32)
    (tmp_path / "m.tflite").write_bytes(flatbuffer.write(tree))
    with pytest.raises(VerificationError, match=r"layer '[ab]': in the whole file its output"):
        compare(q, packed, written, tmp_path / "m.tflite")


def test_blob_whose_bits_fell_over(good, tmp_path):
    def flip(tree, tensors):
        buffer = tree.buffers[tensors["first"].buffer]
        data = np.array(buffer.data, np.uint8)
        data[200] ^= 1
        buffer.data = data

    with pytest.raises(VerificationError, match=r"the file cannot be run: .*crc32"):
        verified(good, tmp_path, flip)


def test_constants_between_layers(good, tmp_path):
    """NaN in what is no packed layer at all."""

    def poison(tree, tensors):
        graph = tree.subgraphs[0]
        softmax = next(
            op for op in graph.operators
            if flatbuffer.builtin_code(tree, op) == schema.BuiltinOperator.SOFTMAX
        )  # fmt: skip
        softmax.builtinOptions.beta = float("nan")

    with pytest.raises(
        VerificationError, match="output 0, sample 0: expected finite values, got nan"
    ):
        verified(good, tmp_path, poison)


def test_a_model_that_gives_nan(tmp_path):
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, name="fc")(inputs)
    model = keras.Model(inputs, keras.ops.log(x - 1e6))
    q = frozen(model, kb.Uniform(4), kb.Uniform(8), images(8, (4,)))
    with pytest.raises(VerificationError, match="output 0: expected a model that gives finite"):
        export(q, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())
