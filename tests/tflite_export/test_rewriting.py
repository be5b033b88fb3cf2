"""Changes of a converted graph that leave its results as they are."""

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from operator_names import operator_names

from tflite_export import flatbuffer, rewriting
from tflite_export.converter import convert

L = keras.layers


def run(data, x):
    interpreter = Interpreter(model_content=data)
    detail = interpreter.get_input_details()[0]
    interpreter.resize_tensor_input(detail["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(detail["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def rewritten(data, *changes):
    tree = flatbuffer.read(data)
    for change in changes:
        change(tree)
    rewriting.remove_dead(tree)
    flatbuffer.remove_unused(tree)
    return flatbuffer.write(tree)


def file(shape, *layers):
    keras.utils.set_random_seed(0)
    return convert(keras.Sequential([keras.Input(shape), *layers]))


def samples(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_shapes_of_an_unknown_batch_become_constants():
    data = file((4, 6), L.Dense(5), L.Flatten(), L.Reshape((2, 10)), L.UpSampling1D(2))
    computed = {"SHAPE", "STRIDED_SLICE", "PACK", "REDUCE_PROD"}
    assert computed <= set(operator_names(data))
    found = rewritten(data, rewriting.fix_reshapes)
    assert not computed & set(operator_names(found))
    np.testing.assert_array_equal(run(found, samples(3, 4, 6)), run(data, samples(3, 4, 6)))


def test_two_unknown_axes_are_left_to_the_runtime():
    data = file((None, 6), L.Dense(5))  # [batch, time, 6]
    assert operator_names(data).count("RESHAPE") == 2
    found = rewritten(data, rewriting.fix_reshapes)
    assert {"SHAPE", "CONCATENATION"} <= set(operator_names(found))
    x = samples(2, 5, 6)
    np.testing.assert_array_equal(run(found, x), run(data, x))


def test_a_change_of_shape_and_back_is_taken_out():
    data = file((6, 2), L.Conv1D(3, 2), L.Conv1D(2, 3), L.Reshape((2, 3)), L.Reshape((1, 6)))
    found = rewritten(data, rewriting.fix_reshapes, rewriting.merge_reshapes)
    names = operator_names(found)
    assert names == ["EXPAND_DIMS", "CONV_2D", "CONV_2D", "RESHAPE"]
    np.testing.assert_array_equal(run(found, samples(2, 6, 2)), run(data, samples(2, 6, 2)))


def test_slim_files_compute_the_same():
    data = file((6, 6, 2), L.Conv2D(3, 3, padding="same"), L.ReLU(), L.Flatten(), L.Dense(4))
    found = rewritten(data, rewriting.fix_reshapes, rewriting.share_constants, rewriting.slim)
    assert len(found) < len(data) - 500
    np.testing.assert_array_equal(run(found, samples(2, 6, 6, 2)), run(data, samples(2, 6, 6, 2)))
    tree = flatbuffer.read(found)
    graph, (signature,) = tree.subgraphs[0], tree.signatureDefs
    named = {i for i, tensor in enumerate(graph.tensors) if tensor.name}
    assert named == {*graph.inputs, *graph.outputs}
    assert graph.tensors[graph.outputs[0]].name == signature.outputs[0].name
    assert not tree.metadata


def test_equal_constants_are_shared_unless_they_are_blobs():
    tree = flatbuffer.read(file((4,), L.Dense(3)))
    graph = tree.subgraphs[0]
    indices = [flatbuffer.add_constant(tree, graph, f"c{i}", b"the same") for i in range(2)]
    blobs = [flatbuffer.add_constant(tree, graph, f"b{i}", b"KBIT the same") for i in range(2)]
    op = graph.operators[0]
    op.inputs = np.array([*op.inputs, *indices, *blobs], np.int32)
    rewriting.share_constants(tree)
    first, second, one, two = op.inputs[-4:]
    assert first == second
    assert one != two  # their names are the paths of layers
    assert graph.tensors[one].buffer == graph.tensors[two].buffer
