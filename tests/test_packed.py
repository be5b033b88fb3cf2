"""Packed tensors and grids, worked out by hand."""

import warnings

import numpy as np
import pytest
from kernels.layers_for_tests import GRIDS, f32, make_grid

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
