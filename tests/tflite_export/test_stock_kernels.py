"""Kernels in stock types: by hand, and as laws."""

import numpy as np
import pytest

from kerasbits.packed import FloatGrid, Floats, PackedTensor, Planes, Table, Uniform
from tflite_export.layer import PackedLayer
from tflite_export.stock.graph import constant_bytes
from tflite_export.stock.kernels import stock_kernel

ROWS = 400
"""Enough weights a channel that integers are smaller than floats."""


def layer(codes, bits, encoding, **kwargs):
    codes = np.asarray(codes, np.uint16)
    bits = np.broadcast_to(np.asarray(bits, np.int32), codes.shape[-1:])
    weight = PackedTensor("layer", codes, bits, codes.ndim - 1, encoding)
    return PackedLayer("dense", weight, FloatGrid(), **kwargs)


def uniform(scale, zero=0, origin=0.0):
    return Uniform(
        *(np.atleast_1d(v) for v in (np.float32(scale), np.int32(zero), np.float32(origin)))
    )


def codes(bits, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 2**bits, (ROWS, channels))


def decoded(stock, packed):
    """The values, once by the stored numbers and once as asked for."""
    gain = 1.0 if packed.multiplier is None else packed.multiplier.astype(np.float64)
    return stock.decode(), (packed.weight.decode() * gain).astype(np.float32)


def test_signed_integers_need_no_zero_point():
    packed = layer(codes(4), 4, uniform(0.5, zero=8))
    stock = stock_kernel(packed)
    (term,) = stock.terms
    assert (term.container, term.scale.tolist(), term.zero.tolist()) == ("INT4", [0.5], [0])
    np.testing.assert_array_equal(term.integers, packed.weight.codes.astype(int) - 8)
    assert stock.offset is None
    assert not stock.note
    assert stock.code_bytes == ROWS * 3 // 2


def test_unsigned_integers_get_a_zero_point_instead_of_a_wider_type():
    stock = stock_kernel(layer(codes(4), 4, uniform(0.5)))
    (term,) = stock.terms
    assert (term.container, term.zero.tolist()) == ("INT4", [-8])
    np.testing.assert_array_equal(*decoded(stock, layer(codes(4), 4, uniform(0.5))))


def test_half_integers_are_odd_integers_of_half_the_step():
    # +-0.5 and +-1.5 times 0.25.
    packed = layer(codes(2), 2, uniform(0.25, origin=-0.375))
    stock = stock_kernel(packed)
    (term,) = stock.terms
    assert (term.container, term.scale.tolist()) == ("INT4", [0.125])
    assert set(np.unique(term.integers)) == {-3, -1, 1, 3}
    np.testing.assert_array_equal(*decoded(stock, packed))


def test_an_origin_of_whole_steps_is_taken_in():
    stock = stock_kernel(layer(codes(3), 3, uniform(0.25, origin=-1.0)))
    assert (stock.container, stock.offset) == ("INT4", None)
    assert set(np.unique(stock.terms[0].integers)) == set(range(-4, 4))


def test_any_other_origin_is_added():
    packed = layer(codes(3), 3, uniform(0.25, origin=-0.61803))
    stock = stock_kernel(packed)
    np.testing.assert_allclose(stock.offset, -0.61803 * np.ones(stock.offset.shape), rtol=1e-6)
    assert "origin" in stock.note
    found, wanted = decoded(stock, packed)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=4e-7)


def test_signs_fit_two_bits():
    packed = layer(codes(1), 1, Planes(np.float32([[0.5]]), np.float32([-0.25])))
    stock = stock_kernel(packed)
    assert (stock.container, stock.note) == ("INT2", "1-bit codes in INT2")
    assert set(np.unique(stock.terms[0].integers)) == {-1, 1}
    np.testing.assert_array_equal(*decoded(stock, packed))


def test_planes_of_doubled_scales_are_one_number():
    planes = Planes(np.float32([[0.5], [1.0]]), np.float32([-0.75]))
    stock = stock_kernel(layer(codes(2), 2, planes))
    assert len(stock.terms) == 1
    assert set(np.unique(stock.terms[0].integers)) == {-3, -1, 1, 3}


def test_planes_of_unrelated_scales_are_added():
    planes = Planes(np.float32([[0.5], [1.3]]), np.float32([-0.9]))
    packed = layer(codes(2), 2, planes)
    stock = stock_kernel(packed)
    assert [t.container for t in stock.terms] == ["INT2", "INT2"]
    assert stock.offset is None
    assert stock.code_bytes == 2 * ROWS * 3 // 4
    found, wanted = decoded(stock, packed)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-7)
    wide = stock_kernel(packed, narrowest=8)
    assert [t.container for t in wide.terms] == ["INT8", "INT8"]


def test_tables_are_divided_by_what_their_levels_share():
    levels = np.array([0, 3, 6, 12], np.int16)
    packed = layer(codes(2), 2, Table(levels, np.float32([0.5])))
    (term,) = stock_kernel(packed).terms
    assert (term.container, term.scale.tolist()) == ("INT4", [1.5])
    assert set(np.unique(term.integers)) == {0, 1, 2, 4}


@pytest.mark.parametrize("zero", [0, 8, 15])
def test_multiplier_goes_into_scales_and_signs(zero):
    gain = np.float32([0.5, -2.0, 0.0])
    packed = layer(codes(4), 4, uniform(0.25, zero=zero), multiplier=gain)
    stock = stock_kernel(packed)
    (term,) = stock.terms
    assert term.container == "INT4"
    assert term.scale[:2].tolist() == [0.125, 0.5]
    assert (term.scale > 0).all()
    np.testing.assert_array_equal(*(np.abs(v) for v in decoded(stock, packed)))
    assert (np.sign(stock.decode()[:, 1]) == -np.sign(packed.weight.decode()[:, 1])).all()


def test_dropped_channels_are_zero():
    bits = np.array([4, 0, 4])
    packed = layer(codes(4) * (bits > 0), bits, uniform(0.5, zero=7, origin=0.1))
    stock = stock_kernel(packed)
    assert (stock.decode()[:, 1] == 0).all()
    np.testing.assert_allclose(*decoded(stock, packed), rtol=1e-5)


def test_small_kernels_and_floats_stay_floats():
    tiny = stock_kernel(layer(codes(4)[:5], 4, uniform(0.5, zero=8)))
    assert (tiny.container, tiny.code_bytes) == ("FLOAT32", 60)
    assert "as much room" in tiny.note
    assert stock_kernel(layer(codes(4)[:5], 4, uniform(0.5, zero=8)), smaller=False).terms
    values = np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)
    weight = PackedTensor("f", np.zeros(0, np.uint16), np.array([32, 32]), 1, Floats(values))
    floats = stock_kernel(PackedLayer("dense", weight, FloatGrid()))
    assert (floats.container, floats.note) == ("FLOAT32", "")


def test_what_no_type_holds_stays_float():
    packed = layer(codes(16), 16, uniform(0.5))  # 0 to 65535: INT16 takes no zero point
    stock = stock_kernel(packed)
    assert stock.container in ("INT16", "FLOAT32")
    np.testing.assert_allclose(*decoded(stock, packed), rtol=1e-6)


def test_narrow_types_fill_bytes_from_the_lowest_bits():
    assert constant_bytes(np.array([1, -2, 7]), "INT4") == bytes([0xE1, 0x07])
    assert constant_bytes(np.array([1, -2, 0, -1, 1]), "INT2") == bytes([0b11001001, 0b01])
    assert constant_bytes(np.array([-2]), "INT16") == b"\xfe\xff"
    with pytest.raises(ValueError, match="INT4 holds, got 0 to 8"):
        constant_bytes(np.array([0, 8]), "INT4")
