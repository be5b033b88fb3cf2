"""One packed file, one delegate, all runtimes: the same outputs everywhere."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from exportable import lively_batch_norms
from kernels.layers_for_tests import random_layer, random_weight
from kernels.tflite_for_tests import NAMES, chain
from runtimes.environments import run_jobs

import kerasbits as kb
from kerasbits.packed import FloatGrid
from tflite_export import Interpreter, delegate_path, export
from tflite_export.blob.writer import write_blob
from tflite_export.layer import PackedLayer
from tflite_export.native import NativeOp


def run_in(runtime, folder, path, inputs):
    """Outputs of a file in a runtime, through the delegate."""
    given = [folder / f"x{i}.npy" for i in range(len(inputs))]
    found = [folder / "y.npy"]
    for to, x in zip(given, inputs, strict=True):
        np.save(to, x)
    job = {"file": str(path), "inputs": list(map(str, given)), "outputs": list(map(str, found))}
    job |= {"delegate": str(delegate_path()), "plain": False}
    (message,) = run_jobs(runtime, [job], folder)
    assert not message, message
    return np.load(found[0])


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    """All custom operators in a row: path, ids of a batch of 3, and the output of the library."""
    rng = np.random.default_rng(0)
    window = {"padding": "same", "strides": (1, 2)}
    row = [
        PackedLayer("embedding", random_weight(rng, "table", (9, 6), 0), FloatGrid()),
        random_layer(rng, "conv2d", (3, 3, 6, 8), "uniform_mixed", "table_signed", **window),
        random_layer(rng, "depthwise_conv2d", (3, 3, 8, 1), "planes", "planes2", padding="same"),
        random_layer(rng, "conv2d", (2, 3, 4, 6), "one_bit", "uniform1_no_zero", groups=2),
        random_layer(rng, "dense", (6, 5), "uniform_no_zero", "uniform8"),
    ]
    blobs, names = [write_blob(layer) for layer in row], [NAMES[layer.op] for layer in row]
    ids = rng.integers(0, 9, (3, 6, 7)).astype(np.int32)
    y, shapes = ids, [(1, 6, 7)]
    for blob in blobs:
        with NativeOp(blob) as op:
            y = op.run(y)
        shapes.append((1, *y.shape[1:]))
    path = tmp_path_factory.mktemp("layers") / "layers.tflite"
    kind = schema.TensorType.INT32
    path.write_bytes(chain(blobs, names, shapes, input_type=kind, dynamic=True))
    return path, ids, y


def test_custom_operators_give_the_same_bits_everywhere(runtime, layers, tmp_path):
    path, ids, y = layers
    np.testing.assert_array_equal(run_in(runtime, tmp_path, path, [ids]), y)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """An exported model of every kind of layer: path, inputs, and the outputs of the model."""
    keras.utils.set_random_seed(0)
    image, ids = keras.Input((9, 8, 3), name="image"), keras.Input((4,), dtype="int32", name="ids")
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
    x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization()(x))
    x = start = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = keras.layers.Conv2D(8, 3, padding="same", dilation_rate=2)(x) + start
    x = keras.layers.Conv2DTranspose(4, 3, strides=2)(keras.layers.MaxPooling2D(2)(x))
    words = keras.layers.Flatten()(keras.layers.Embedding(10, 3)(ids))
    x = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(x), words])
    model = keras.Model([image, ids], keras.layers.Dense(5, activation="softmax")(x))
    lively_batch_norms(model)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(16, 9, 8, 3)).astype(np.float32)
    inputs = [images, rng.integers(0, 10, (16, 4)).astype(np.int32)]
    q = kb.quantize_model(model, kernel=kb.Uniform(3, granularity="channel"), inputs=kb.Uniform(8))
    kb.calibrate(q, inputs)
    kb.freeze(q)
    path = tmp_path_factory.mktemp("network") / "network.tflite"
    result = export(q, path, sample=[a[:3] for a in inputs])
    assert len(result.layers) == 6
    given = [a[:3] for a in inputs]
    return path, given, q.predict(given, verbose=0)


def test_an_exported_network_gives_the_same_outputs_everywhere(runtime, network, tmp_path):
    path, given, expected = network
    y = run_in(runtime, tmp_path, path, given)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(y, Interpreter(path).predict(given), rtol=1e-5, atol=1e-6)
