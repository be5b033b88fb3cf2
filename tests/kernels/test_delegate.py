import numpy as np
import pytest
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema
from kernels.layers_for_tests import inputs, random_layer, random_weight
from kernels.tflite_for_tests import NAMES, chain

from kerasbits.packed import FloatGrid
from tflite_export.blob.writer import write_blob
from tflite_export.layer import PackedLayer
from tflite_export.native import NativeOp, library_path

LAYERS = {
    "dense": ((11, 5), (3, 11)),
    "conv2d": ((3, 3, 5, 4), (2, 6, 5, 5)),
    "depthwise_conv2d": ((3, 3, 5, 1), (1, 6, 5, 5)),
}


def interpreter(model, **options):
    delegate = litert.load_delegate(str(library_path()))
    return litert.Interpreter(model_content=model, experimental_delegates=[delegate], **options)


def invoke(runner, x):
    runner.allocate_tensors()
    runner.set_tensor(runner.get_input_details()[0]["index"], x)
    runner.invoke()
    return runner.get_tensor(runner.get_output_details()[0]["index"])


def make(op, grid="uniform4", seed=0):
    rng = np.random.default_rng(seed)
    shape, in_shape = LAYERS[op]
    window = {} if op == "dense" else {"padding": "same", "strides": (2, 1)}
    layer = random_layer(
        rng, op, shape, "uniform", grid, axis=-1 if op != "depthwise_conv2d" else 2, **window
    )
    return write_blob(layer), inputs(rng, in_shape)


@pytest.mark.parametrize("op", LAYERS)
def test_equals_the_op_behind_it(op):
    blob, x = make(op)
    expected = NativeOp(blob).run(x)
    model = chain([blob], [NAMES[op]], [x.shape, expected.shape])
    np.testing.assert_array_equal(invoke(interpreter(model), x), expected)


def test_neighbours_and_a_new_batch_size():
    """Three of our nodes in a row, then twice the batch."""
    rng = np.random.default_rng(1)
    blobs, shapes, x = [], [(2, 7, 7, 3)], inputs(rng, (2, 7, 7, 3))
    for i, shape in enumerate([(3, 3, 3, 6), (1, 1, 6, 4), (3, 2, 4, 5)]):
        grid = ("uniform8", "planes2", "table_signed")[i]
        blobs.append(write_blob(random_layer(rng, "conv2d", shape, "uniform", grid)))
        shapes.append(NativeOp(blobs[-1]).output_shape(shapes[-1]))

    def expected(y):
        for blob in blobs:
            y = NativeOp(blob).run(y)
        return y

    runner = interpreter(chain(blobs, [NAMES["conv2d"]] * 3, shapes), num_threads=2)
    np.testing.assert_array_equal(invoke(runner, x), expected(x))
    twice = inputs(rng, (4, 7, 7, 3))
    runner.resize_tensor_input(0, twice.shape)
    np.testing.assert_array_equal(invoke(runner, twice), expected(twice))


def ids_and_embedding(encoding="uniform_mixed", axis=0):
    rng = np.random.default_rng(2)
    layer = PackedLayer("embedding", random_weight(rng, encoding, (12, 7), axis), FloatGrid())
    return layer, write_blob(layer), rng.integers(0, 12, (2, 5))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("kind", ["INT32", "INT64"])
def test_embeddings(kind, axis):
    """In front of a dense layer, then with twice the batch."""
    layer, blob, ids = ids_and_embedding(axis=axis)
    dense = write_blob(random_layer(np.random.default_rng(3), "dense", (7, 3), "table", "uniform8"))
    kinds = {"input_type": getattr(schema.TensorType, kind)}
    names = ["KerasbitsEmbedding", "KerasbitsDense"]
    runner = interpreter(chain([blob, dense], names, [(2, 5), (2, 5, 7), (2, 5, 3)], **kinds))
    ids = ids.astype(kind.lower())
    expected = NativeOp(dense).run(layer.weight.decode()[ids])
    np.testing.assert_array_equal(invoke(runner, ids), expected)
    runner.resize_tensor_input(0, (4, 5))
    twice = np.concatenate([ids, ids[::-1]])
    np.testing.assert_array_equal(invoke(runner, twice), np.concatenate([expected, expected[::-1]]))


@pytest.mark.parametrize(("kind", "wrong"), [("INT32", 12), ("INT32", -1), ("INT64", 2**40)])
def test_ids_without_a_row_are_refused(kind, wrong):
    _, blob, ids = ids_and_embedding()
    kinds = {"input_type": getattr(schema.TensorType, kind)}
    runner = interpreter(chain([blob], ["KerasbitsEmbedding"], [(2, 5), (2, 5, 7)], **kinds))
    ids = ids.astype(kind.lower())
    ids[1, 2] = wrong
    with pytest.raises(RuntimeError, match=rf"KerasbitsEmbedding: .*got {wrong}"):
        invoke(runner, ids)
    ids[1, 2] = 3
    invoke(runner, ids)


def test_an_embedding_of_floats_is_refused():
    _, blob, _ = ids_and_embedding()
    refuse(
        chain([blob], ["KerasbitsEmbedding"], [(2, 5), (2, 5, 7)]),
        "KerasbitsEmbedding",
        "expected int32 or int64 input",
    )


@pytest.mark.parametrize("op", LAYERS)
def test_every_batch_size_in_turn(op):
    blob, x = make(op)
    native = NativeOp(blob)
    runner = interpreter(chain([blob], [NAMES[op]], [x.shape, native.output_shape(x.shape)]))
    for batch in (1, 5, 2, 7):
        x = inputs(np.random.default_rng(batch), (batch, *x.shape[1:]))
        runner.resize_tensor_input(0, x.shape)
        np.testing.assert_array_equal(invoke(runner, x), native.run(x))


def test_a_dynamic_batch_in_the_signature():
    """A file says -1 for its batch; the runtime starts with 1 and takes any."""
    blob, x = make("depthwise_conv2d")
    native = NativeOp(blob)
    shapes = [x.shape, native.output_shape(x.shape)]
    model = chain([blob], [NAMES["depthwise_conv2d"]], shapes, dynamic=True)
    runner = interpreter(model)
    assert runner.get_input_details()[0]["shape_signature"][0] == -1
    np.testing.assert_array_equal(invoke(runner, x), native.run(x))
    x = inputs(np.random.default_rng(9), (3, *x.shape[1:]))
    runner.resize_tensor_input(0, x.shape, strict=True)
    np.testing.assert_array_equal(invoke(runner, x), native.run(x))


def test_two_interpreters_at_once():
    blob, x = make("dense")
    model = chain([blob], ["KerasbitsDense"], [x.shape, (3, 5)])
    first, second = interpreter(model), interpreter(model)
    expected = NativeOp(blob).run(x)
    np.testing.assert_array_equal(invoke(first, x), expected)
    np.testing.assert_array_equal(invoke(second, -x), NativeOp(blob).run(-x))
    np.testing.assert_array_equal(invoke(first, x), expected)


def refuse(model, *words):
    with pytest.raises((RuntimeError, ValueError)) as info:
        interpreter(model).allocate_tensors()
    for word in words:
        assert word in str(info.value)


def test_a_corrupt_blob_is_refused():
    blob, x = make("dense")
    broken = blob[:130] + bytes([blob[130] ^ 1]) + blob[131:]
    model = chain([broken], ["KerasbitsDense"], [x.shape, (3, 5)])
    refuse(model, "KerasbitsDense", "checksum")


def test_a_blob_of_another_kind_is_refused():
    blob, x = make("dense")
    model = chain([blob], ["KerasbitsConv2D"], [x.shape, (3, 5)])
    refuse(model, "KerasbitsConv2D", "kind of layer")


def test_a_wrong_input_shape_is_refused():
    blob, _ = make("dense")
    refuse(chain([blob], ["KerasbitsDense"], [(3, 12), (3, 5)]), "KerasbitsDense", "11")


def test_a_blob_of_another_type_is_refused():
    blob, x = make("dense")
    kind = schema.TensorType.INT32
    model = chain([blob], ["KerasbitsDense"], [x.shape, (3, 5)], kind)
    refuse(model, "KerasbitsDense", "uint8")


def test_other_custom_nodes_are_left_alone():
    blob, x = make("dense")
    refuse(chain([blob], ["Unknown"], [x.shape, (3, 5)]), "Unknown")


def test_threads_by_option_and_by_interpreter():
    """As many nodes as there are kinds of layers; results are those of one thread."""
    delegate = litert.load_delegate(str(library_path()), {"threads": "3"})
    for op in LAYERS:
        blob, x = make(op)
        expected = NativeOp(blob).run(x)
        model = chain([blob], [NAMES[op]], [x.shape, expected.shape])
        runner = litert.Interpreter(model_content=model, experimental_delegates=[delegate])
        np.testing.assert_array_equal(invoke(runner, x), expected)
        np.testing.assert_array_equal(invoke(interpreter(model, num_threads=2), x), expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"speed": "2"}, "no option but threads"),
        ({"threads": "0"}, "1 to 256 threads"),
        ({"threads": "257"}, "1 to 256 threads"),
        ({"threads": "two"}, "1 to 256 threads"),
        ({"threads": "2x"}, "1 to 256 threads"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        litert.load_delegate(str(library_path()), options)
