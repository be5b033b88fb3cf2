"""Packed tensors and grids, worked out by hand."""

import warnings

import numpy as np
import pytest
from kernels.layers_for_tests import GRIDS, f32, make_grid

from kerasbits.packed import Floats, PackedTensor, code_bytes

CODED = [name for name in GRIDS if not name.startswith("float")]


@pytest.mark.parametrize("name", CODED)
def test_not_a_number_has_code_0(name):
    grid = make_grid(name)
    with warnings.catch_warnings(), np.errstate(all="warn"):
        warnings.simplefilter("error")
        codes = grid.codes(f32([np.nan, 0.75, -np.nan]))
    assert codes.dtype == np.uint16
    np.testing.assert_array_equal(codes, [0, grid.codes(f32([0.75]))[0], 0])
    assert codes[1] > 0


@pytest.mark.parametrize("name", CODED)
def test_far_values_have_the_codes_of_infinity(name):
    grid = make_grid(name)
    far = np.finfo(np.float32).max
    with warnings.catch_warnings(), np.errstate(all="warn"):
        warnings.simplefilter("error")
        codes = grid.codes(f32([far, -far, np.inf, -np.inf]))
    np.testing.assert_array_equal(codes[:2], codes[2:])
    assert codes[0] > codes[1]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_dropped_channels_of_floats_are_zero(axis):
    values = np.moveaxis(f32([[1, 2, 3], [4, np.nan, 6]]).reshape(2, 1, 3), -1, axis)
    tensor = PackedTensor("w", np.zeros(0), np.array([32, 0, 32]), axis, Floats(values))
    decoded = np.moveaxis(tensor.decode(), axis, -1)
    np.testing.assert_array_equal(decoded.reshape(2, 3), [[1, 0, 3], [4, 0, 6]])
    assert decoded.dtype == np.float32
    assert tensor.shape == values.shape
    assert tensor.code_bytes == 4 * 4


def test_bytes_of_codes():
    assert code_bytes(np.array([3, 0, 3, 1]), 33) == 3 * 16 + 8  # 66 codes take two words a plane
    assert code_bytes(np.array([32, 0, 32]), 5) == 2 * 5 * 4
    assert code_bytes(np.zeros(4, int), 7) == 0
