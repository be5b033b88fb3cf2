"""The delegate does the additions next to packed layers, with the bits of the stock runtime."""

import numpy as np
import pytest
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema
from kernels.layers_for_tests import inputs, random_layer
from kernels.tflite_for_tests import add

from tflite_export.blob.writer import write_blob
from tflite_export.native import NativeOp, library_path

CLAMPS = schema.ActivationFunctionType
ONLY_OURS = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
SHAPE = (1, 4, 4, 3)
LARGE = (1, 24, 40, 3)  # enough for two threads to share


def convolution(seed=0):
    """A layer whose output has the shape of its input."""
    rng = np.random.default_rng(seed)
    window = {"padding": "same", "strides": (1, 1)}
    return write_blob(random_layer(rng, "conv2d", (3, 3, 3, 3), "uniform", "uniform8", **window))


def run(model, arrays, delegate=True, **options):
    delegates = [litert.load_delegate(str(library_path()))] if delegate else []
    runner = litert.Interpreter(model_content=model, experimental_delegates=delegates, **options)
    for detail, x in zip(runner.get_input_details(), arrays, strict=True):
        runner.resize_tensor_input(detail["index"], x.shape)
    runner.allocate_tensors()
    for detail, x in zip(runner.get_input_details(), arrays, strict=True):
        runner.set_tensor(detail["index"], x)
    runner.invoke()
    return runner.get_tensor(runner.get_output_details()[0]["index"])


def with_oddities(x):
    """Some values that a clamp might lose: NaN, infinities, zeros of both signs."""
    odd = np.float32([np.nan, np.inf, -np.inf, -0.0, 0.0, 3e38, 1e-40])
    x = x.copy()
    x.reshape(-1)[: 3 * len(odd) : 3] = odd
    return x


def claimed(model):
    """How many nodes are ours."""
    delegate = litert.load_delegate(str(library_path()))
    options = {"experimental_delegates": [delegate], "experimental_op_resolver_type": ONLY_OURS}
    runner = litert.Interpreter(model_content=model, **options)
    runner.allocate_tensors()
    return sum(op["op_name"] == "DELEGATE" for op in runner._get_ops_details())


@pytest.mark.parametrize("shape", [SHAPE, LARGE])
@pytest.mark.parametrize("clamp", [CLAMPS.NONE, CLAMPS.RELU, CLAMPS.RELU_N1_TO_1, CLAMPS.RELU6])
def test_the_bits_of_the_stock_runtime(clamp, shape):
    rng, blob = np.random.default_rng(3), convolution()
    x, s = inputs(rng, shape), with_oddities(inputs(rng, shape))
    model = add(clamp, blob, shape)
    assert claimed(model) == 2
    expected = run(add(clamp, shape=shape), [NativeOp(blob).run(x), s], delegate=False)
    for threads in (1, 2):
        y = run(model, [x, s], num_threads=threads)
        np.testing.assert_array_equal(y.view(np.uint32), expected.view(np.uint32))


def test_new_shapes_that_broadcast():
    rng, blob = np.random.default_rng(4), convolution()
    model = add(CLAMPS.RELU, blob)
    for first, second in (((3, 4, 4, 3), SHAPE), ((1, 1, 4, 3), (2, 5, 4, 3)), (SHAPE, (1, 3))):
        x, s = inputs(rng, first), inputs(rng, second)
        expected = np.maximum(NativeOp(blob).run(x) + s, 0)
        np.testing.assert_array_equal(
            run(model, [x, s], experimental_op_resolver_type=ONLY_OURS), expected
        )
    with pytest.raises(RuntimeError, match="broadcast"):
        run(model, [inputs(rng, SHAPE), inputs(rng, (1, 4, 5, 3))])


def test_other_additions_are_left_alone():
    blob, constant = convolution(), np.ones(SHAPE, np.float32)
    assert claimed(add(CLAMPS.RELU, blob, constant=constant)) == 1
    assert claimed(add(CLAMPS.RELU, blob, apart=True)) == 1
    assert claimed(add(CLAMPS.RELU)) == 0
