"""Reading, cleaning and writing the TFLite flatbuffer."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from exportable import network

from tflite_export import flatbuffer
from tflite_export.converter import convert


@pytest.fixture(scope="module")
def data():
    return convert(network())


def run(data, x):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


X = np.random.default_rng(0).normal(size=(1, 9, 9, 3)).astype(np.float32)


def test_rewriting_changes_nothing_but_alignment(data):
    again = flatbuffer.write(flatbuffer.read(data))
    np.testing.assert_array_equal(run(again, X), run(data, X))
    assert flatbuffer.write(flatbuffer.read(again)) == again


def test_constants_are_aligned(data):
    tree = flatbuffer.read(data)
    blob = flatbuffer.MAGIC + bytes(100)
    flatbuffer.add_constant(tree, tree.subgraphs[0], "blob", blob)
    model = schema.Model.GetRootAs(flatbuffer.write(tree), 0)
    seen = {16: 0, 64: 0}
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if not buffer.DataIsNone() and buffer.DataLength():
            field = buffer._tab.Offset(4)  # the first field of the table, `data`
            content = buffer.DataAsNumpy().tobytes()
            large = len(content) >= 1024 or content == blob
            alignment = flatbuffer.ALIGNMENT if large else 16
            assert buffer._tab.Vector(field) % alignment == 0
            seen[alignment] += 1
    assert min(seen.values()) > 1


def test_equal_vectors_are_written_once(data):
    tree = flatbuffer.read(data)
    for _ in range(50):
        flatbuffer.add_constant(tree, tree.subgraphs[0], "the same name", b"the same data" * 9)
    more = len(flatbuffer.write(tree)) - len(flatbuffer.write(flatbuffer.read(data)))
    assert more < 50 * 60 + 200  # a tensor and a buffer each, one name, one shape, one content


def test_unused_parts_go_and_the_rest_still_works(data):
    tree = flatbuffer.read(data)
    flatbuffer.remove_unused(tree)  # what the converter itself leaves behind
    sizes = len(tree.buffers), len(tree.subgraphs[0].tensors), len(tree.operatorCodes)
    expected = flatbuffer.write(tree)
    flatbuffer.add_constant(tree, tree.subgraphs[0], "nobody reads this", bytes(5000))
    flatbuffer.custom_opcode(tree, "NobodyRunsThis")
    # In front, so that every index moves.
    tree.subgraphs[0].tensors.insert(0, tree.subgraphs[0].tensors[-1])
    for op in tree.subgraphs[0].operators:
        op.inputs = op.inputs + (op.inputs >= 0)
        op.outputs = op.outputs + 1
    tree.subgraphs[0].inputs = tree.subgraphs[0].inputs + 1
    tree.subgraphs[0].outputs = tree.subgraphs[0].outputs + 1
    for signature in tree.signatureDefs:
        for entry in [*signature.inputs, *signature.outputs]:
            entry.tensorIndex += 1
    flatbuffer.remove_unused(tree)
    assert sizes == (
        len(tree.buffers),
        len(tree.subgraphs[0].tensors),
        len(tree.operatorCodes),
    )
    assert flatbuffer.write(tree) == expected
    np.testing.assert_array_equal(run(expected, X), run(data, X))


def test_custom_opcode_is_added_once(data):
    tree = flatbuffer.read(data)
    first = flatbuffer.custom_opcode(tree, "Ours")
    assert flatbuffer.custom_opcode(tree, "Ours") == first
    assert flatbuffer.custom_opcode(tree, "Other") == first + 1


def test_checksum(data):
    tree = flatbuffer.read(data)
    flatbuffer.add_checksum(tree)
    written = flatbuffer.write(tree)
    flatbuffer.check(written)
    assert flatbuffer.write(flatbuffer.read(written)) == written
    changed = bytearray(written)
    changed[len(written) // 2] ^= 1
    with pytest.raises(ValueError, match="expected checksum"):
        flatbuffer.read(bytes(changed))


@pytest.mark.parametrize("bad", [b"", b"TFL3", b"\0\0\0\0TFL2" + bytes(100), bytes(64)])
def test_other_files_are_refused(bad):
    with pytest.raises(ValueError, match="expected a TFLite file"):
        flatbuffer.read(bad)
