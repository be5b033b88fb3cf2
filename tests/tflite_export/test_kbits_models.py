"""Whole networks as .kbits files: what they compute, what they keep, how large they are."""

import itertools
import shutil
import subprocess

import keras
import numpy as np
import pytest
from exportable import lively_batch_norms
from kbits_operators import converted
from keras import layers
from kernels.test_c_checks import KERNELS

import kerasbits as kb
from examples.networks import lenet5, mobilenet_v2_small, two_inputs
from tflite_export import Interpreter, native
from tflite_export.collect import collect
from tflite_export.in_numpy.runner import NumpyRunner
from tflite_export.kbits import container
from tflite_export.kbits.runner import KbitsRunner
from tflite_export.kbits.writer import write_kbits
from tflite_export.kbits_generated import Op
from tflite_export.native import NativeOp
from tflite_export.tflite_writer import write_packed


def small_resnet():
    """Batch norm, strides, projections, an addition, global pooling."""
    inputs = keras.Input((12, 12, 3))
    x = start = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    for strides in (1, 2):
        y = layers.Conv2D(8, 3, strides, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", use_bias=False)(y))
        side = x if strides == 1 else layers.Conv2D(8, 1, strides)(x)
        x = layers.ReLU()(layers.Add()([y, side]))
    x = layers.Concatenate()([x, layers.AveragePooling2D(2)(start)])
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def audio():
    """Convolutions over time, causal and depthwise, layer norm, PReLU, attention over time."""
    inputs = keras.Input((20, 6))
    x = layers.Conv1D(8, 3, padding="causal", dilation_rate=2)(inputs)
    x = layers.PReLU(shared_axes=(1,), alpha_initializer="random_normal")(x)
    x = layers.DepthwiseConv1D(3, padding="same")(x)
    x = layers.LayerNormalization()(x)
    weights = layers.Softmax(axis=1)(layers.Dense(1)(x))
    x = layers.Dot(axes=1)([weights, x])
    return keras.Model(inputs, layers.Dense(3, "sigmoid")(layers.Flatten()(x)))


def words():
    """Ids into a table that stays float, and a table that is quantized."""
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Concatenate()(
        [layers.Embedding(9, 4, name="plain")(inputs), layers.Embedding(9, 6)(inputs)]
    )
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalMaxPooling1D()(x)))


def halves():
    """Two inputs of different shapes, two outputs; one output is used further on."""
    left, right = keras.Input((6,), name="left"), keras.Input((3,), name="right")
    shared = layers.Dense(6, "relu")
    first = shared(shared(left))
    second = layers.Dense(2, name="second")(layers.Concatenate()([first, right]))
    return keras.Model([left, right], [second, first])


MOVING = ("SLICE", "PAD", "MIRROR_PAD", "TILE", "TRANSPOSE", "RESIZE_NEAREST", "RESIZE_BILINEAR")
MOVING += ("CONCATENATION", "MAX_POOL", "REDUCE_MEAN", "BATCH_MATMUL")
"""Operations whose indices follow from attributes and shapes of the file."""

STAGES = ((1, 8, 1, 1), (4, 16, 2, 2))
NETWORKS = {
    "lenet5": lenet5,
    "resnet": small_resnet,
    "mobilenet": lambda: mobilenet_v2_small((12, 12, 3), 4, 0.25, STAGES),
    "two_inputs": lambda: two_inputs((8, 8, 1), 4, 4),
    "audio": audio,
    "words": words,
    "halves": halves,
}


def samples(model, count=6, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for t in model.inputs:
        shape = (count, *t.shape[1:])
        is_float = keras.backend.is_float_dtype(t.dtype)
        made.append(rng.normal(size=shape).astype(np.float32) if is_float
                    else rng.integers(0, 9, shape, np.int32))  # fmt: skip
    return made if len(made) > 1 else made[0]


class Written:
    """A quantized network and its two files. Inputs of layers stay float, so that no value can
    fall between two codes and the outputs must agree closely."""

    def __init__(self, name, folder):
        keras.utils.set_random_seed(4)
        plain = NETWORKS[name]()
        lively_batch_norms(plain)
        rules = {"plain": kb.Rule(None, None)} if name == "words" else {}
        self.model = kb.quantize_model(plain, kb.Uniform(4), None, rules=rules)
        kb.freeze(self.model)
        self.packed = collect(self.model)
        self.file = write_kbits(self.model, self.packed)
        self.path = folder / f"{name}.kbits"
        self.path.write_bytes(self.file.data)
        self.x = samples(self.model)
        self.y = self.model.predict(self.x, verbose=0)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("networks"), {}

    def get(name):
        if name not in made:
            made[name] = Written(name, folder)
        return made[name]

    return get


def listed(y):
    return y if isinstance(y, list) else [y]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_what_the_model_predicts(written, name):
    network = written(name)
    found = Interpreter(network.path).predict(network.x)
    for want, got in zip(listed(network.y), listed(found), strict=True):
        assert want.std() > 0.01
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6 * max(1, abs(want).max()))


@pytest.mark.parametrize("name", NETWORKS)
def test_kept_tensors_are_what_layers_read_and_write(written, name):
    """Without the kept tensors of a run, the same outputs; and each layer's output follows from
    its input."""
    network = written(name)
    runner = KbitsRunner(network.file.data, keep_tensors=True)
    one = [a[:1] for a in listed(network.x)]
    outputs = runner.run(one)
    again = KbitsRunner(network.file.data).run(one)
    for a, b in zip(outputs, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert network.file.inputs.keys() == network.file.blobs.keys() == network.file.layers.keys()
    for path, blob in network.file.blobs.items():
        reads, writes = network.file.inputs[path], network.file.outputs[path]
        assert len(reads) == len(writes) >= 1
        with NativeOp(blob) as op:
            for x, y in zip(reads, writes, strict=True):
                np.testing.assert_array_equal(op.run(runner.tensor(x)), runner.tensor(y))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_bytes_twice_and_no_more_than_tflite(written, name):
    network = written(name)
    assert write_kbits(network.model, network.packed).data == network.file.data
    assert len(network.file.data) < len(write_packed(network.model, network.packed).data)


def test_blobs_lie_on_borders_and_are_shared(written):
    network = written("two_inputs")
    model = container.read(network.file.data)
    assert {b.path.decode() for b in model.blobs} == set(network.file.layers)
    for blob in network.file.blobs.values():
        assert network.file.data.index(blob) % 64 == 0
        assert network.file.data.count(blob) == 1
    uses = [node.blob for node in model.nodes if node.op == Op.PACKED]
    assert len(uses) == len(model.blobs) + 2  # conv1 and embed are used twice
    assert len(network.file.inputs["conv1"]) == 2


def test_names_shapes_and_types(written):
    runner = KbitsRunner(written("halves").file.data)
    assert runner.inputs == [("left", (1, 6), np.float32), ("right", (1, 3), np.float32)]
    assert [shape for _, shape, _ in runner.outputs] == [(1, 2), (1, 6)]
    assert all(name for name, _, _ in runner.outputs)
    words = KbitsRunner(written("words").file.data)
    assert words.inputs[0][1:] == ((1, 5), np.int32)
    assert len(words.packed_layers) == 2  # not the table that stays float
    assert written("words").file.float_bytes == 4 * 9 * 4


def test_ids_without_a_row_are_refused(written):
    runner = KbitsRunner(written("words").file.data)
    for bad in (-1, 9, 2**31 - 1):
        with pytest.raises(
            ValueError, match=rf"node \d+ \(PACKED\): embedding: expected ids .*{bad}"
        ):
            runner.run([np.array([[0, 1, bad, 2, 3]], np.int32)])
    runner.run([np.array([[0, 1, 8, 2, 3]], np.int32)])


def test_inputs_keep_their_type(written):
    interpreter = Interpreter(written("words").path)
    x = written("words").x
    np.testing.assert_array_equal(interpreter.predict(x.astype(np.int64)), interpreter.predict(x))
    np.testing.assert_array_equal(interpreter.predict(x.astype(float)), interpreter.predict(x))
    for bad in (x + 0.5, x + np.int64(2**40), x.astype(str)):
        with pytest.raises(ValueError, match=r"input '.+': expected"):
            interpreter.predict(bad)


def test_a_batch_that_the_model_fixes_is_kept():
    model = keras.Sequential([keras.Input(batch_shape=(4, 6)), layers.Dense(3)])
    q = kb.quantize_model(model, kb.Uniform(3), None)
    kb.freeze(q)
    runner = KbitsRunner(write_kbits(q, collect(q)).data)
    assert runner.batch == 4
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    np.testing.assert_allclose(runner.run([x])[0], q.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


def test_memory_is_planned(written):
    """Values that do not live at the same time share memory; a chain of 20 needs two places."""
    inputs = keras.Input((64, 64, 1))
    x = inputs
    for i in range(20):
        x = layers.Activation(("tanh", "sigmoid")[i % 2])(x)
    q = kb.quantize_model(
        keras.Model(inputs, layers.Dense(1)(layers.GlobalMaxPooling2D()(x))), kb.Uniform(2), None
    )
    kb.freeze(q)
    data = write_kbits(q, collect(q)).data
    one = 64 * 64 * 4
    assert 2 * one < KbitsRunner(data).memory < 3 * one
    assert 21 * one < KbitsRunner(data, keep_tensors=True).memory < 23 * one


def test_broken_files_are_refused(written, tmp_path):
    data = written("halves").file.data
    rng = np.random.default_rng(0)
    path = tmp_path / "broken.kbits"
    cases = [data[:n] for n in (0, 3, 7, 8, 40, len(data) // 2, len(data) - 1)]
    for at in itertools.chain(range(8), rng.integers(8, len(data), 60)):
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        cases.append(changed)
    for case in cases:
        path.write_bytes(case)
        with pytest.raises(ValueError, match=r"file '.*broken\.kbits'"):
            Interpreter(path)


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_written_files_under_sanitizers(written, tmp_path):
    """Every byte of small files changed, with the checksum made right again."""
    command = ["make", "-s", "-C", str(KERNELS), f"BUILD={tmp_path}", f"{tmp_path}/test_model"]
    subprocess.run(command, check=True, capture_output=True)
    paths = [written(name).path for name in ("halves", "words")]
    for name in MOVING:
        paths.append(tmp_path / f"{name}.kbits")
        paths[-1].write_bytes(converted(name)[1])
    done = subprocess.run([f"{tmp_path}/test_model", *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_unknown_shapes_are_refused():
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3)])
    q = kb.quantize_model(model, kb.Uniform(3), None)
    kb.freeze(q)
    with pytest.raises(ValueError, match=r"tensor '.+': expected a fixed shape, got \(1, -1, -1"):
        write_kbits(q, collect(q))


def test_a_closed_runner_says_so(written):
    runner = KbitsRunner(written("halves").file.data)
    with pytest.raises(ValueError, match="KB_KEEP_TENSORS"):
        runner.tensor(0)
    with pytest.raises(ValueError, match="expected 2 inputs, got 1"):
        runner.run([np.zeros((1, 6), np.float32)])
    with pytest.raises(ValueError, match=r"input 'right': expected shape \(1, 3\), got \(1, 4\)"):
        runner.run([np.zeros((1, 6)), np.zeros((1, 4))])
    runner.close()
    runner.close()
    with pytest.raises(ValueError, match="closed"):
        runner.run([np.zeros((1, 6)), np.zeros((1, 3))])


def test_numpy_runs_files_where_the_library_is_missing(written, monkeypatch):
    network = written("resnet")
    monkeypatch.setattr(native, "has_library", lambda: False)
    interpreter = Interpreter(network.path)
    assert isinstance(interpreter._runner, NumpyRunner)
    assert interpreter.batch == 1
    assert set(interpreter.packed_layers) == set(network.file.layers)
    np.testing.assert_allclose(interpreter.predict(network.x), network.y, rtol=1e-5, atol=1e-5)
