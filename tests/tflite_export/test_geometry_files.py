"""Every quantized layer in a packed file: one operator, and the numbers of Keras."""

import keras
import numpy as np
import pytest
from exportable import lively_batch_norms
from geometries import CASES, ZOO_PATHS, zoo, zoo_batch
from operator_names import operator_names

import kerasbits as kb
from tflite_export import Interpreter, export, flatbuffer
from tflite_export.collect import collect
from tflite_export.marked import convert_marked, data_input
from tflite_export.tflite_writer import write_packed

QUANTIZERS = {
    "uniform": (kb.Uniform(4, granularity="channel"), kb.Uniform(6)),
    "without_zero": (kb.LeastSquaresBinary("ls2"), kb.LeastSquaresBinary("ls2")),
}
SHAPES = {"EXPAND_DIMS", "RESHAPE"}


def model_of(case, quantizers):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(case.shape, dtype="int32" if case.ids else "float32")
    model = keras.Model(inputs, case.layer(*quantizers)(inputs))
    kb.calibrate(model, case.inputs(16))
    kb.freeze(model)
    return model


@pytest.mark.parametrize("quantizers", QUANTIZERS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_layer_is_one_operator(case, quantizers, tmp_path):
    model, x = model_of(case, QUANTIZERS[quantizers]), case.inputs(5, seed=3)
    result = export(model, tmp_path / "m.tflite", sample=x)
    assert result.max_error <= 1e-4
    assert result.verification.clean_samples > 0
    names = operator_names(result.path.read_bytes())
    others = [name for name in names if not name.startswith("Kerasbits")]
    expected = SHAPES if len(case.shape) == 2 and "Conv" in case.name else set()
    expected |= {"TANH"} if case.arguments.get("activation") == "tanh" else set()
    assert set(others) == expected, names
    assert len(others) == len(expected)
    assert len(names) == len(others) + 1


def test_every_layer_in_one_file(tmp_path):
    q = zoo(kb.Uniform(5), kb.Uniform(8))
    inputs, _ = zoo_batch(16)
    kb.calibrate(q, [inputs])
    kb.freeze(q)
    result = export(q, tmp_path / "m.tflite", sample=inputs)
    assert sorted(layer.name for layer in result.layers) == sorted(ZOO_PATHS)
    names = operator_names(result.path.read_bytes())
    # Between layers over one axis the image keeps its second axis.
    assert names.count("EXPAND_DIMS") == 1
    assert not {"SHAPE", "PACK", "STRIDED_SLICE", "RELU", "SQUEEZE"} & set(names)
    found = Interpreter(result.path).predict(inputs)
    expected = q.predict(inputs, verbose=0)
    assert np.median(np.abs(found - expected)) <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_batch_of_the_file(batch):
    q = zoo(kb.Uniform(4), kb.Uniform(8))
    kb.calibrate(q, [zoo_batch(8)[0]])
    kb.freeze(q)
    marked = convert_marked(q, collect(q), batch)
    graph = marked.tree.subgraphs[0]
    assert set(marked.operators) == set(ZOO_PATHS)
    for path, (op,) in marked.operators.items():
        for index in (data_input(marked.tree, op), int(op.outputs[0])):
            tensor = graph.tensors[index]
            assert flatbuffer.constant(marked.tree, tensor) is None, path
            shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
            assert int(shape[0]) == (-1 if batch is None else batch), path


def test_separable_network_with_batch_norms(tmp_path):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((12, 12, 3))
    x = layers.SeparableConv2D(8, 3, use_bias=False, padding="same", name="a")(inputs)
    x = start = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.SeparableConv2D(8, 3, use_bias=False, padding="same", name="b")(x)
    x = layers.BatchNormalization()(x) + start
    x = layers.DepthwiseConv2D(3, strides=2, use_bias=False, name="c")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(scale=False)(x))
    x = layers.Conv2DTranspose(4, 3, strides=2, use_bias=False, name="d")(x)
    x = layers.Reshape((-1, 4))(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.Conv1D(4, 3, use_bias=False, name="e")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dense(6, use_bias=False, name="f")(x)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Dropout(0.2)(x)))
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(x))
    lively_batch_norms(model)
    x = np.random.default_rng(0).normal(size=(16, 12, 12, 3)).astype(np.float32)
    q = kb.quantize_model(model, kb.Uniform(4), kb.Uniform(8))
    kb.calibrate(q, x)
    packed = collect(q)
    folded = {path for path, c in packed.layers.items() if c.batch_norm is not None}
    assert folded == {"a/pointwise", "b/pointwise", "c", "d", "e", "f"}
    assert any((packed.layers[path].packed.multiplier < 0).any() for path in folded)
    names = operator_names(write_packed(q, packed).data)
    assert [n for n in names if not n.startswith("Kerasbits") and n not in SHAPES] == [
        "ADD",
        "MEAN",
    ]
    assert export(q, tmp_path / "m.tflite", sample=x[:4]).max_error <= 1e-4
