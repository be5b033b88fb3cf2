"""Rounding of large sums that a steep activation amplifies is no difference; more than that is."""

import types

import keras
import numpy as np
import pytest

from tflite_export.verification.activated import activated_error
from tflite_export.verification.result import TOLERANCE


def worst(activation, model_sums, file_sums):
    layer = types.SimpleNamespace(activation=keras.activations.get(activation))
    expected = keras.ops.convert_to_numpy(layer.activation(keras.ops.convert_to_tensor(model_sums)))
    error, found = activated_error(types.SimpleNamespace(layer=layer), expected, file_sums)
    assert found.shape == expected.shape
    return error.max()


def sums(last, largest=20_000.0):
    return np.array([[largest, -largest, 0.0, last]], np.float32)


def test_float_rounding_of_large_sums():
    """Two units in the last place of 20,000 are 0.004, which a sigmoid makes 0.001."""
    assert worst("sigmoid", sums(0.0), sums(0.002)) == 0
    assert worst("sigmoid", sums(0.0, 20.0), sums(0.002, 20.0)) > TOLERANCE


@pytest.mark.parametrize("off", [0.02, -0.02, np.nan])
def test_more_than_rounding_is_found(off):
    assert not worst("sigmoid", sums(0.0), sums(off)) <= TOLERANCE


def test_nothing_changes_without_an_activation():
    assert worst("linear", sums(0.0), sums(0.1)) == pytest.approx(0.1 / 20_000)
    assert worst("linear", sums(0.0), sums(4.0)) == pytest.approx(4.0 / 20_000, rel=1e-3, abs=2e-6)
    assert worst("linear", sums(0.0), sums(4.0)) > TOLERANCE


def test_softmax_moves_its_sums_in_both_directions():
    one, other = sums(20_000.0), sums(20_000.002)
    assert worst("softmax", one, other) == 0
    assert worst("softmax", one, sums(20_000.5)) > TOLERANCE
