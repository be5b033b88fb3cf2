import numpy as np
from kernels.layers_for_tests import f32
from kernels.reference_for_tests import sums

from kerasbits.packed import FloatGrid, Floats, PackedTensor
from tflite_export.layer import PackedLayer


def test_the_reference_itself():
    """The loops of the reference, against a convolution worked out by hand."""
    weight = PackedTensor("w", np.zeros(0), np.full(1, 32), 3, Floats(f32(np.ones((3, 3, 1, 1)))))
    layer = PackedLayer("conv2d", weight, FloatGrid(), padding="same", strides=(2, 2))
    total = sums(layer, np.ones((1, 4, 4, 1)), np.ones((3, 3, 1, 1)))
    np.testing.assert_array_equal(total[0, :, :, 0], [[9, 6], [6, 4]])
