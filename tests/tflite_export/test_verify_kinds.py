"""Verification of every kind of file, with and without the C library, on every kind of layer."""

import dataclasses
import warnings

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from exportable import frozen, images

import kerasbits as kb
from tflite_export import VerificationError, export, flatbuffer, native
from tflite_export import kbits_generated as kbits
from tflite_export.collect import collect
from tflite_export.kbits import container
from tflite_export.kbits.writer import write_kbits
from tflite_export.stock.writer import write_stock
from tflite_export.verification.compare import compare

KINDS = {
    "packed": ("m.tflite", {}),
    "kbits": ("m.kbits", {}),
    "stock": ("m.tflite", {"profile": "stock"}),
    "int8": ("m.tflite", {"profile": "stock", "activations": "int8"}),
}


def mixed():
    """Folded padding, a strided and a transposed convolution, depthwise, a branch, softmax."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.ZeroPadding2D(((0, 1), (0, 1)), name="pad")(inputs)
    x = layers.Conv2D(6, 3, strides=2, activation="relu", name="first")(x)
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="depthwise")(x)
    x = layers.Add()([layers.Conv2D(6, 1, activation="relu", name="point")(y), x])
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same", name="up")(x)
    x = layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(x))
    return keras.Model(inputs, layers.Dense(5, activation="softmax", name="last")(x))


def words():
    """Ids through an embedding and convolutions over one axis, the second after causal padding."""
    keras.utils.set_random_seed(0)
    ids = keras.Input((12,), dtype="int32", name="ids")
    x = keras.layers.Embedding(40, 8, name="embedding")(ids)
    x = keras.layers.Conv1D(6, 3, activation="relu", name="conv")(x)
    x = keras.layers.Conv1D(6, 2, padding="causal", activation="tanh", name="causal")(x)
    x = keras.layers.GlobalMaxPooling1D()(x)
    return keras.Model(ids, keras.layers.Dense(3, name="last")(x))


def ids(count=4):
    return np.random.default_rng(0).integers(0, 40, (count, 12)).astype(np.int32)


@pytest.fixture(scope="module")
def image_model():
    return frozen(mixed(), kb.Uniform(4), kb.Uniform(8), images(8, (8, 8, 3)))


@pytest.fixture(scope="module")
def word_model():
    return frozen(words(), kb.Uniform(4), kb.Uniform(8), ids(16))


@pytest.mark.parametrize("kind", KINDS)
def test_images(image_model, tmp_path, kind):
    name, options = KINDS[kind]
    checked = export(image_model, tmp_path / name, sample=images(3, (8, 8, 3)), **options)
    checked = checked.verification
    assert checked.layers == 5
    side = 8 if kind in ("packed", "kbits") else 9  # stock files pad before they round
    assert checked.codes == 7 * (side * side * 3 + 3 * 4 * 4 * 6 + 4)
    assert checked.max_error <= 1e-4
    assert checked.max_code_difference <= (kind == "int8")
    if kind != "int8":
        assert checked.clean_samples > 0
        assert checked.max_difference <= 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_ids(word_model, tmp_path, kind):
    name, options = KINDS[kind]
    checked = export(word_model, tmp_path / name, sample=ids(3), **options).verification
    assert checked.layers == 4
    assert checked.max_error <= 1e-4
    assert checked.samples == 7


@pytest.mark.parametrize("kind", ["packed", "kbits"])
@pytest.mark.parametrize("which", ["image_model", "word_model"])
def test_without_the_library(request, tmp_path, monkeypatch, kind, which):
    monkeypatch.setattr(native, "has_library", lambda: False)
    model = request.getfixturevalue(which)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checked = export(model, tmp_path / KINDS[kind][0]).verification
    assert checked.max_error <= 1e-4
    assert checked.codes > 0
    assert checked.layers == len(collect(model).layers)


def test_wrong_layer_is_found_without_the_library(image_model, tmp_path, monkeypatch):
    """The layers of the packed file itself are run, not only of what stands in for it."""
    from tflite_export.tflite_writer import write_packed

    monkeypatch.setattr(native, "has_library", lambda: False)
    packed = collect(image_model)
    layer = packed.layers["point"]
    wrong = dataclasses.replace(layer.packed, bias=layer.packed.bias + 0.05)
    layers = {**packed.layers, "point": dataclasses.replace(layer, packed=wrong)}
    written = write_packed(image_model, dataclasses.replace(packed, layers=layers))
    (tmp_path / "m.tflite").write_bytes(written.data)
    with pytest.raises(VerificationError, match="layer 'point': output differs at"):
        compare(image_model, packed, written, tmp_path / "m.tflite")


def damaged_stock(model, tmp_path, change, **options):
    packed = collect(model)
    written = write_stock(model, packed, **options)
    tree = flatbuffer.read(written.data)
    change(tree)
    (tmp_path / "m.tflite").write_bytes(flatbuffer.write(tree))
    return compare(model, packed, written, tmp_path / "m.tflite")


def stored(tree, kinds):
    """Constants of some types, the largest one first."""
    tensors = [t for t in tree.subgraphs[0].tensors if t.type in kinds]
    tensors = [t for t in tensors if flatbuffer.constant(tree, t) is not None]
    return sorted(tensors, key=lambda t: -int(np.prod(t.shape)))


def kernel_of_first(tree):
    """The kernel of a layer that integers hold: INT4 in a float file, else INT8."""
    integers = (schema.TensorType.INT8, schema.TensorType.INT4)
    return next(t for t in stored(tree, integers) if list(t.shape) == [6, 3, 3, 3])


@pytest.mark.parametrize("activations", ["float", "int8"])
def test_stock_untouched(image_model, tmp_path, activations):
    damaged_stock(image_model, tmp_path, lambda tree: None, activations=activations)


@pytest.mark.parametrize("activations", ["float", "int8"])
def test_stock_with_wrong_numbers(image_model, tmp_path, activations):
    def change(tree):
        buffer = tree.buffers[kernel_of_first(tree).buffer]
        data = np.array(buffer.data, np.uint8)
        data[::3] ^= 0x22
        buffer.data = data

    with pytest.raises(VerificationError, match="layer 'first': in the whole file its output"):
        damaged_stock(image_model, tmp_path, change, activations=activations)


@pytest.mark.parametrize("activations", ["float", "int8"])
def test_stock_with_a_wrong_scale(image_model, tmp_path, activations):
    def change(tree):
        grid = kernel_of_first(tree).quantization
        grid.scale = np.asarray(grid.scale) * 1.2

    with pytest.raises(VerificationError, match="layer 'first': in the whole file its output"):
        damaged_stock(image_model, tmp_path, change, activations=activations)


@pytest.mark.parametrize(("codes", "found"), [(0.9, False), (2.1, True)])
def test_integers_may_be_one_code_off(image_model, tmp_path, codes, found):
    """The bias of one channel moves what the layer gives by a number of its output's codes."""

    def change(tree):
        tensors = tree.subgraphs[0].tensors
        kernel = kernel_of_first(tree)
        (op,) = (
            op for op in tree.subgraphs[0].operators if any(tensors[i] is kernel for i in op.inputs)
        )
        bias, output = tensors[op.inputs[2]], tensors[op.outputs[0]]
        values = np.array(tree.buffers[bias.buffer].data, np.uint8).view("<i4")
        values[1] += round(codes * output.quantization.scale[0] / bias.quantization.scale[1])
        tree.buffers[bias.buffer].data = values.view(np.uint8)

    if not found:
        damaged_stock(image_model, tmp_path, change, activations="int8")
        return
    with pytest.raises(VerificationError, match="layer 'first': in the whole file its output"):
        damaged_stock(image_model, tmp_path, change, activations="int8")


def test_stock_with_nan(image_model, tmp_path):
    def change(tree):
        bias = next(t for t in stored(tree, (schema.TensorType.FLOAT32,)) if len(t.shape) == 1)
        count = int(np.prod(bias.shape))
        tree.buffers[bias.buffer].data = np.full(count, np.nan, "<f4").view(np.uint8)

    with pytest.raises(VerificationError, match=r"differs|finite"):
        damaged_stock(image_model, tmp_path, change)


def test_stock_with_an_operator_between_layers_changed(image_model, tmp_path):
    """Rows instead of a maximum: the input of what follows is another."""

    def change(tree):
        for op in tree.subgraphs[0].operators:
            if flatbuffer.builtin_code(tree, op) == schema.BuiltinOperator.MAX_POOL_2D:
                op.opcodeIndex = flatbuffer.opcode(tree, schema.BuiltinOperator.AVERAGE_POOL_2D)

    with pytest.raises(VerificationError, match="layer 'last': in the whole file its input"):
        damaged_stock(image_model, tmp_path, change)


def damaged_kbits(model, tmp_path, change):
    packed = collect(model)
    written = write_kbits(model, packed)
    tree = container.read(written.data)
    change(tree)
    (tmp_path / "m.kbits").write_bytes(container.serialize(tree))
    return compare(model, packed, written, tmp_path / "m.kbits")


def test_kbits_with_swapped_blobs(word_model, tmp_path):
    def change(tree):
        nodes = [n for n in tree.nodes if n.op == kbits.Op.PACKED]
        causal, last = (tree.blobs[nodes[i].blob] for i in (2, 3))
        causal.data, last.data = last.data, causal.data

    with pytest.raises(VerificationError, match=r"cannot be run|layer '(causal|last)': expected a"):
        damaged_kbits(word_model, tmp_path, change)


def test_kbits_with_another_operation(word_model, tmp_path):
    def change(tree):
        node = next(n for n in tree.nodes if n.op == kbits.Op.TANH)
        node.op = kbits.Op.LOGISTIC

    with pytest.raises(VerificationError, match="layer 'last': in the whole file its input"):
        damaged_kbits(word_model, tmp_path, change)


def test_a_graph_that_was_traced_wrongly(image_model, tmp_path, monkeypatch):
    """The model itself is what files are compared with, not what was made of it."""
    packed = collect(image_model)
    add = next(c for c in packed.graph.calls if type(c.layer).__name__ == "Add")
    maximum = dataclasses.replace(add, layer=keras.layers.Maximum())
    calls = tuple(maximum if c is add else c for c in packed.graph.calls)
    graph = dataclasses.replace(packed.graph, calls=calls)
    wrong = dataclasses.replace(packed, graph=graph)
    monkeypatch.setattr("tflite_export.exporter.collect", lambda model: wrong)
    with pytest.raises(VerificationError, match="though every layer agrees"):
        export(image_model, tmp_path / "m.tflite")


def test_uses_that_read_the_same_are_one_in_the_file(tmp_path):
    """The converter merges them; in integers each of them must be compared with that one."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs, shared = keras.Input((5,)), layers.Dense(5, activation="relu", name="shared")
    again = shared(shared(inputs))
    top = layers.Dense(3, name="top")(shared(shared(inputs)))
    model = frozen(keras.Model(inputs, [top, again]), kb.Uniform(4), kb.Uniform(8), images(8, (5,)))
    name, options = KINDS["int8"]
    checked = export(model, tmp_path / name, sample=images(3, (5,)), **options).verification
    assert checked.codes == 7 * 5 * 5
    assert checked.max_code_difference <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_float_inputs_beyond_their_range(tmp_path, kind):
    """All 32 bits, but clipped: where the file clips is no difference."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="only")])
    pair = kb.BayesianBits(max_bits=32), kb.BayesianBits(max_bits=32)
    model = frozen(model, *pair, images(8, (6,)))
    name, options = KINDS[kind]
    checked = export(model, tmp_path / name, sample=5 * images(3, (6,)), **options).verification
    assert checked.max_error <= 1e-4
