"""What is known of a graph before it runs."""

import types

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as tflite

from tflite_export.kbits.fold import fold
from tflite_export.kbits.translation import Translation

SHAPE = [2, 3, 4, 5]


def graph(code, inputs, result, **options):
    """A graph of one operator on constants (or, where None, on a computed tensor [2, 3, 4, 5])."""
    tree, operator = tflite.ModelT(), tflite.OperatorT()
    tree.buffers = [tflite.BufferT()]
    tensors = []
    for values in [*inputs, None]:
        tensor = tflite.TensorT()
        tensor.name, tensor.type = b"t", tflite.TensorType.INT32
        tensor.shape = np.array(SHAPE if values is None else np.shape(values), np.int32)
        tensor.buffer = 0
        if values is not None:
            buffer = tflite.BufferT()
            buffer.data = np.frombuffer(np.asarray(values, "<i4").tobytes(), np.uint8)
            tree.buffers.append(buffer)
            tensor.buffer = len(tree.buffers) - 1
        tensors.append(tensor)
    tensors[-1].shape = np.array(np.shape(result), np.int32)
    opcode = tflite.OperatorCodeT()
    opcode.builtinCode = code
    tree.operatorCodes = [opcode]
    operator.opcodeIndex, operator.builtinOptions = 0, types.SimpleNamespace(**options)
    operator.inputs = np.arange(len(inputs), dtype=np.int32)
    operator.outputs = np.array([len(inputs)], np.int32)
    part = tflite.SubGraphT()
    part.tensors, part.operators = tensors, [operator]
    tree.subgraphs = [part]
    return Translation(tree), operator


MASKS = {"beginMask": 0, "endMask": 0, "shrinkAxisMask": 0}

# fmt: off
CASES = [
    ("SHAPE", [None], SHAPE, {}),
    ("ADD", [[1, 2], 3], [4, 5], {}),
    ("SUB", [[1, 2], 3], [-2, -1], {}),
    ("MUL", [[1, 2], [3, 4]], [3, 8], {}),
    ("FLOOR_DIV", [[7, -7], 2], [3, -4], {}),
    ("MAXIMUM", [[1, 5], 3], [3, 5], {}),
    ("MINIMUM", [[1, 5], 3], [1, 3], {}),
    ("REDUCE_PROD", [[2, 3, 4], [0]], 24, {}),
    ("CAST", [[1, 2]], [1, 2], {}),
    ("RESHAPE", [[1, 2], [2, 1]], [[1], [2]], {}),
    ("SQUEEZE", [[[1, 2]]], [1, 2], {}),
    ("EXPAND_DIMS", [[1, 2], 0], [[1, 2]], {}),
    ("PACK", [1, 2, 3], [1, 2, 3], {"axis": 0}),
    ("CONCATENATION", [[1], [2, 3]], [1, 2, 3], {"axis": 0}),
    ("STRIDED_SLICE", [SHAPE, [1], [2], [1]], 3, {**MASKS, "shrinkAxisMask": 1}),
    ("STRIDED_SLICE", [SHAPE, [3], [0], [-2]], [5, 3], MASKS),
    ("STRIDED_SLICE", [SHAPE, [1], [2], [1]], [2, 3], {**MASKS, "beginMask": 1}),
    ("STRIDED_SLICE", [SHAPE, [1], [2], [1]], [3, 4, 5], {**MASKS, "endMask": 1}),
    ("SLICE", [SHAPE, [1], [2]], [3, 4], {}),
    ("SLICE", [SHAPE, [2], [-1]], [4, 5], {}),
    ("GATHER", [SHAPE, [3, 0]], [5, 2], {"axis": 0}),
]
# fmt: on


@pytest.mark.parametrize(("name", "inputs", "result", "options"), CASES)
def test_a_known_value(name, inputs, result, options):
    translation, operator = graph(getattr(tflite.BuiltinOperator, name), inputs, result, **options)
    assert fold(translation, operator)
    np.testing.assert_array_equal(translation.value(len(inputs)), result)


def test_what_depends_on_inputs_is_left_alone():
    translation, operator = graph(tflite.BuiltinOperator.ADD, [None, 3], np.zeros(SHAPE))
    assert not fold(translation, operator)
    assert translation.value(2) is None


def test_other_operators_on_constants_are_left_to_run():
    translation, operator = graph(tflite.BuiltinOperator.EXP, [[1, 2]], [0, 0])
    assert not fold(translation, operator)
