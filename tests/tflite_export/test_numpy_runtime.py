"""The runtime of .kbits files in NumPy, operation by operation, and beside the one in C."""

import warnings

import numpy as np
import pytest
from exportable import frozen, images, network
from kernels.layers_for_tests import f32, random_layer, random_weight
from kernels.operators_for_tests import CASES, file_of, given, tensor_of

import kerasbits as kb
from kerasbits.packed import FloatGrid
from tflite_export import kbits_generated as schema
from tflite_export.blob.writer import write_blob
from tflite_export.collect import collect
from tflite_export.in_numpy.op import NumpyOp
from tflite_export.in_numpy.runner import NumpyRunner
from tflite_export.kbits import container
from tflite_export.kbits.runner import KbitsRunner
from tflite_export.kbits.writer import write_kbits
from tflite_export.layer import PackedLayer

IDS = [f"{i}-{case.op}" for i, case in enumerate(CASES)]


@pytest.mark.parametrize("runner", [NumpyRunner, KbitsRunner])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_operations_equal_their_witness(case, runner):
    (y,) = runner(file_of(case)).run(given(case))
    assert y.dtype == case.y.dtype
    assert y.shape == case.y.shape
    np.testing.assert_allclose(y, case.y, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_both_runtimes_agree(case):
    """On the witness's values, and on what is no number or far away."""
    far = f32([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e38, -1e38, 1e-30, 88, -104, 0.5, 1.5, -2.5])
    data, values = file_of(case), given(case)
    for x in (values, [np.resize(far, v.shape) if v.dtype == np.float32 else v for v in values]):
        (y,), (z,) = KbitsRunner(data).run(x), NumpyRunner(data).run(x)
        with np.errstate(all="ignore"):  # the comparison computes with infinities
            np.testing.assert_allclose(z, y, rtol=1e-6, atol=1e-6)


def test_every_operation_has_a_case():
    names = {name for name in vars(schema.Op) if not name.startswith("_")}
    assert {case.op for case in CASES} == names - {"PACKED"}


def case_of(op):
    return next(case for case in CASES if case.op == op)


REFUSED = [
    ("ADD", {"shape": (2, 3, 5)}, "shape"),
    ("ADD", {"inputs": [0]}, "2 inputs"),
    ("ADD", {"inputs": [0, 2]}, "before it"),
    ("ADD", {"inputs": [0, 7]}, "before it"),
    ("ADD", {"output": 0}, "nothing else writes"),
    ("ADD", {"output": 9}, "nothing else writes"),
    ("ADD", {"floats": [1.0]}, "floats"),
    ("ADD", {"floats": [1.0, 0.0]}, "rising"),
    ("ADD", {"floats": [np.nan, 0.0]}, "rising"),
    ("ADD", {"ints": [1]}, "ints"),
    ("ADD", {"op": 50}, "number 50"),
    ("PACKED", {}, "blob"),
    ("CLAMP", {"floats": []}, "2 floats"),
    ("TANH", {"shape": (5, 3)}, "shape"),
    ("GELU", {"ints": [2]}, "0 or 1"),
    ("MAX_POOL", {"ints": [3, 2, 0, 1, 0, 0, 0, 0]}, "positive"),
    ("MAX_POOL", {"ints": [0, 2, 2, 1, 0, 0, 0, 0]}, "positive"),
    ("MAX_POOL", {"ints": [3, 2, 2, 1, 3, 0, 0, 0]}, "smaller"),
    ("MAX_POOL", {"ints": [3, 2, 2, 1, 0, -1, 0, 0]}, "positive"),
    ("MAX_POOL", {"ints": [1, 2, 2, 1, 0, 1, 0, 3]}, "inside"),
    ("MAX_POOL", {"ints": [9, 2, 2, 1, 0, 0, 0, 0]}, "inside"),
    ("MAX_POOL", {"ints": [3, 2, 1, 1, 0, 0, 0, 0]}, "shape"),
    ("REDUCE_MEAN", {"ints": [2, 1]}, "rising"),
    ("REDUCE_MEAN", {"ints": [1, 1]}, "rising"),
    ("REDUCE_MEAN", {"ints": [1, 4]}, "below 4"),
    ("REDUCE_MEAN", {"ints": [-1]}, "below 4"),
    ("REDUCE_MEAN", {"shape": (2, 5, 1)}, "shape"),
    ("SOFTMAX", {"floats": [0.0]}, "beta"),
    ("SOFTMAX", {"floats": [np.inf]}, "beta"),
    ("RESHAPE", {"shape": (6, 5)}, "24 elements"),
    ("TRANSPOSE", {"ints": [0, 1]}, "each of 3"),
    ("TRANSPOSE", {"ints": [0, 1, 1]}, "each of 3"),
    ("SLICE", {"ints": [1, 2, 1, 1, -2, 0]}, "inside"),
    ("SLICE", {"ints": [1, 2, 2, 1, -2, 1]}, "inside"),
    ("SLICE", {"ints": [2, 2, 1, 1, -2, 1]}, "inside"),
    ("SLICE", {"ints": [1, 2, 1]}, "6 ints"),
    ("CONCATENATION", {"ints": [3]}, "axis"),
    ("CONCATENATION", {"ints": [-1]}, "axis"),
    ("CONCATENATION", {"ints": [0]}, "fit"),
    ("CONCATENATION", {"inputs": []}, "1 inputs"),
    ("CONCATENATION", {"shape": (2, 9, 4)}, "shape"),
    ("PAD", {"ints": [0, 0, 1, 2, 4, -1]}, "pads"),
    ("PAD", {"ints": [0, 0, 1, 2, 3]}, "6 ints"),
    ("PAD", {"floats": []}, "1 floats"),
    ("MIRROR_PAD", {"ints": [2, 1, 1, 2, 0, 3, 1]}, "mode"),
    ("MIRROR_PAD", {"ints": [0, 2, 0, 2, 0, 3, 1]}, "pads"),
    ("TILE", {"shape": (4, 3, 10)}, "multiples"),
    ("TILE", {"shape": (4, 36)}, "multiples"),
    ("RESIZE_NEAREST", {"ints": [1, 1]}, "corners or"),
    ("RESIZE_NEAREST", {"ints": [0, 2]}, "0 or 1"),
    ("RESIZE_NEAREST", {"shape": (2, 9, 10, 4)}, "shape"),
    ("BATCH_MATMUL", {"ints": [0, 1]}, "multiplied"),
    ("BATCH_MATMUL", {"shape": (2, 3, 4)}, "shape"),
    ("CAST", {"shape": (4, 2)}, "shape"),
    ("ABS", {"shape": (3, 5, 2**30)}, "2\\^31"),
    ("ABS", {"shape": (0, 5)}, "at least 1"),
    ("ABS", {"shape": (1,) * 9}, "at most 8"),
]


@pytest.mark.parametrize(("op", "changes", "message"), REFUSED)
def test_what_does_not_fit_is_refused(op, changes, message):
    case = case_of("ADD" if op == "PACKED" else op)
    changes = {"op": schema.Op.PACKED, "inputs": [0]} if op == "PACKED" else dict(changes)
    data = file_of(case, **changes)
    with pytest.raises(ValueError, match=message):
        NumpyRunner(data)
    with pytest.raises(ValueError, match=r"expected"):
        KbitsRunner(data)


def edited(case, edit):
    """The file of a case after a change of its tree."""
    model = container.read(file_of(case))
    edit(model)
    return container.serialize(model)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: setattr(m.tensors[1], "type", 2), "type 0 or 1"),
        (lambda m: setattr(m.tensors[1], "type", 1), "one type"),
        (lambda m: setattr(m.tensors[1], "data", m.tensors[1].data[4:]), "bytes of data"),
        (lambda m: setattr(m.tensors[1], "data", None), "before it"),
        (lambda m: setattr(m, "inputs", [1]), "constant"),
        (lambda m: setattr(m, "inputs", [0, 0]), "another input"),
        (lambda m: setattr(m, "inputs", []), "inputs among"),
        (lambda m: setattr(m, "outputs", [3]), "outputs among"),
        (lambda m: setattr(m, "nodes", []), "writes it"),
        (lambda m: setattr(m, "nodes", [m.nodes[0]] * 2), "nothing else writes"),
        (lambda m: m.blobs.append(blob_of(b"KBIT, but no more")), "blob 0"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(edit, message):
    data = edited(case_of("ADD"), edit)
    with pytest.raises(ValueError, match=message):
        NumpyRunner(data)
    with pytest.raises(ValueError, match=r"expected"):
        KbitsRunner(data)


def test_corrupt_files_are_refused():
    data = file_of(case_of("ADD"))
    for broken in (data[:-4], data[:60] + bytes([data[60] ^ 1]) + data[61:], b"", data[:12]):
        for runner in (NumpyRunner, KbitsRunner):
            with pytest.raises(ValueError, match=r"expected|corrupt"):
                runner(broken)


def blob_of(data, path=None):
    blob = schema.BlobT()
    blob.data, blob.path = np.frombuffer(data, np.uint8), path
    return blob


def node_of(op, inputs, output, **attributes):
    node = schema.NodeT()
    node.op, node.inputs, node.output = op, inputs, output
    for name, value in attributes.items():
        setattr(node, name, value)
    return node


@pytest.fixture
def words_network():
    """Ids looked up, a dense layer used twice, and a sum: bytes and the blobs."""
    rng = np.random.default_rng(0)
    table = PackedLayer("embedding", random_weight(rng, "uniform", (5, 4), 0), FloatGrid())
    dense = random_layer(rng, "dense", (4, 4), "uniform", "uniform8")
    blobs = [write_blob(table), write_blob(dense)]
    model = schema.ModelT()
    model.blobs = [blob_of(blobs[0], "words"), blob_of(blobs[1], "dense")]
    shapes = [(1, 3), *[(1, 3, 4)] * 4]
    model.tensors = [tensor_of(s, np.float32, f"t{i}") for i, s in enumerate(shapes)]
    model.tensors[0].type = schema.Type.INT32
    model.nodes = [
        node_of(schema.Op.PACKED, [0], 1, blob=0),
        node_of(schema.Op.PACKED, [1], 2, blob=1),
        node_of(schema.Op.PACKED, [2], 3, blob=1),
        node_of(schema.Op.ADD, [2, 3], 4),
    ]
    model.inputs, model.outputs = [0], [4, 2]
    return model, blobs


def test_a_network_of_layers(words_network):
    model, blobs = words_network
    runner = NumpyRunner(container.serialize(model), keep_tensors=True)
    assert runner.inputs == [("t0", (1, 3), np.int32)]
    assert runner.outputs == [("t4", (1, 3, 4), np.float32), ("t2", (1, 3, 4), np.float32)]
    assert runner.batch == 1
    assert runner.packed_layers == ("words", "dense")
    ids = np.array([[4, 0, 1]])
    words, first, second = (NumpyOp(blobs[i]) for i in (0, 1, 1))
    x = words.run(ids)
    y = first.run(x)
    z = second.run(y)
    outputs = runner.run([ids])
    np.testing.assert_array_equal(outputs[0], y + z)
    np.testing.assert_array_equal(outputs[1], y)
    np.testing.assert_array_equal(runner.tensor(1), x)
    np.testing.assert_array_equal(runner.run([ids])[0], outputs[0])
    with runner:
        pass
    with pytest.raises(ValueError, match="closed"):
        runner.run([ids])


def test_tensors_are_let_go_unless_asked_for(words_network):
    runner = NumpyRunner(container.serialize(words_network[0]))
    runner.run([np.array([[4, 0, 1]])])
    np.testing.assert_array_equal(runner.tensor(4).shape, (1, 3, 4))
    for index in (0, 1, 3, 99):
        with pytest.raises(ValueError, match="kept"):
            runner.tensor(index)


def test_wrong_inputs_are_refused(words_network):
    runner = NumpyRunner(container.serialize(words_network[0]))
    for arrays, message in (
        ([], "1 inputs"),
        ([np.zeros((2, 3))], "input 't0'.*\\(1, 3\\)"),
        ([np.array([[4, 0, 5]])], "node 0 .PACKED.*ids"),
    ):
        with pytest.raises(ValueError, match=message):
            runner.run(arrays)


@pytest.mark.parametrize("index", [0, 1])
def test_layers_and_types_that_do_not_fit_are_refused(words_network, index):
    model = words_network[0]
    model.nodes[index].blob = 1 - index
    with pytest.raises(ValueError, match=f"node {index} .PACKED.*(int32|float32)"):
        NumpyRunner(container.serialize(model))


def test_layers_and_shapes_that_do_not_fit_are_refused(words_network):
    model = words_network[0]
    model.tensors[2].shape = np.array((1, 3, 5), np.int32)
    with pytest.raises(ValueError, match=r"node 1 .PACKED.*\(1, 3, 4\)"):
        NumpyRunner(container.serialize(model))


def test_what_is_no_number_passes_without_warnings():
    x = np.array([np.nan, np.inf, -np.inf, 0, -1, 1e38], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for case in CASES:
            x0 = case.inputs[0]
            if len(case.inputs) == 1 and case.y.shape == x0.shape and x0.dtype == np.float32:
                image = np.resize(x, x0.shape)
                NumpyRunner(file_of(case)).run([image])
    clamp = case_of("CLAMP")
    (y,) = NumpyRunner(file_of(clamp)).run([np.resize(x, clamp.y.shape)])
    np.testing.assert_array_equal(y[0], [np.nan, np.inf, 0, 0, 0, np.float32(1e38)])


def test_an_exported_network_runs_alike_in_both():
    """Every tensor of the graph, and the outputs beside the model's."""
    q = frozen(network(), kb.Uniform(3), kb.Uniform(8))
    data = write_kbits(q, collect(q)).data
    c_runner, numpy_runner = KbitsRunner(data, True), NumpyRunner(data, True)
    assert numpy_runner.packed_layers == c_runner.packed_layers
    assert (numpy_runner.inputs, numpy_runner.outputs) == (c_runner.inputs, c_runner.outputs)
    for x in images(4)[:, None]:
        (y,), (z,) = c_runner.run([x]), numpy_runner.run([x])
        for index in range(len(container.read(data).tensors)):
            of_c, of_numpy = c_runner.tensor(index), numpy_runner.tensor(index)
            np.testing.assert_allclose(of_numpy, of_c, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(z, y, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(z, q(x), rtol=1e-4, atol=1e-5)
