"""Every operation of .kbits files against the stock interpreter, from one converted graph."""

import numpy as np
import pytest
import tensorflow as tf
from kbits_operators import FUNCTIONS, IMAGE, converted, converted_function

from tflite_export import flatbuffer
from tflite_export.in_numpy.runner import NumpyRunner
from tflite_export.kbits import container
from tflite_export.kbits.runner import KbitsRunner
from tflite_export.kbits.writer import write_marked
from tflite_export.kbits_generated import Op
from tflite_export.marked import Marked
from tflite_export.tflite_runner import TfliteRunner

OP_NAMES = {code: name for name, code in vars(Op).items() if isinstance(code, int)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_operation(name):
    stock, data = converted(name)
    x = np.random.default_rng(1).normal(size=IMAGE).astype(np.float32)
    expected = TfliteRunner(stock).run([x])
    with KbitsRunner(data) as runner:
        found = runner.run([x])
    assert len(expected) == len(found)
    for runtime in (found, NumpyRunner(data).run([x])):
        for want, got in zip(expected, runtime, strict=True):
            assert want.shape == got.shape
            # Sums of some dozens of products, in another order.
            np.testing.assert_allclose(got, want, rtol=2e-6, atol=4e-6 * max(1, abs(want).max()))
    assert np.std(np.concatenate([np.ravel(y) for y in found])) > 0.1
    if name != "blocks":
        ops = {node.op for node in container.read(data).nodes}
        assert getattr(Op, name) in ops, [OP_NAMES[op] for op in ops]


def test_each_operation_has_a_test():
    assert set(OP_NAMES.values()) - set(FUNCTIONS) == {"PRELU"}  # of layers, in test_kbits_models


def test_what_kbits_lacks_is_named():
    tree = flatbuffer.read(converted_function(lambda x: tf.cumsum(x, 1)))
    with pytest.raises(ValueError, match=r"operator CUMSUM that writes '.+': expected"):
        write_marked(Marked(tree, {}, {}))
