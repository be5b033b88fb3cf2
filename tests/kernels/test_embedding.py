"""Embeddings: rows of a packed table, looked up by whole numbers."""

import dataclasses

import numpy as np
import pytest
from kernels.layers_for_tests import ENCODINGS, f32, make_grid, random_layer, random_weight

from kerasbits.packed import FloatGrid, Floats, PackedTensor, Planes, Table, Uniform
from tflite_export.blob import header as blob_header
from tflite_export.blob.writer import read_blob, section_sizes, write_blob
from tflite_export.layer import PackedLayer
from tflite_export.native import NativeOp

SHAPES = [(70, 67), (3, 130), (200, 1), (1, 5)]


def embedding(weight):
    return PackedLayer("embedding", weight, FloatGrid())


def look_up(layer, ids):
    with NativeOp(write_blob(layer)) as op:
        return op.run(ids)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_rows_equal_the_decoded_table(encoding, axis):
    for shape in SHAPES:
        rng = np.random.default_rng(sum(shape))
        layer = embedding(random_weight(rng, encoding, shape, axis))
        ids = rng.integers(0, shape[0], (3, 7))
        ids[0, :2] = 0, shape[0] - 1
        y = look_up(layer, ids)
        assert y.shape == (3, 7, shape[1])
        np.testing.assert_array_equal(y, layer.weight.decode()[ids])


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_round_trip(encoding, axis):
    layer = embedding(random_weight(np.random.default_rng(1), encoding, (9, 6), axis))
    blob = write_blob(layer)
    back = read_blob(blob)
    assert (back.op, back.weight.channel_axis, back.weight.shape) == ("embedding", axis, (9, 6))
    np.testing.assert_array_equal(back.weight.decode(), layer.weight.decode())
    np.testing.assert_array_equal(back.weight.bits, layer.weight.bits)
    assert write_blob(back) == blob
    assert (back.in_channels, back.out_channels) == (9, 6)
    assert section_sizes(blob).get("codes", 0) == layer.weight.code_bytes


def by_hand():
    """Three rows of 2, 0 and 1 bits: 0.5 * (code - 1), nothing, and 2 * code + 1."""
    codes = np.array([[3, 1], [0, 0], [1, 0]], np.uint16)
    encoding = Uniform(f32([0.5, 1, 2]), np.array([1, 0, 0], np.int32), f32([0, 0, 1]))
    return embedding(PackedTensor("words", codes, np.array([2, 0, 1]), 0, encoding))


def test_a_table_by_hand():
    np.testing.assert_array_equal(look_up(by_hand(), [2, 0, 1]), [[3, 1], [1, 0], [0, 0]])


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0, 3), (2, 1, 3), (1,) * 7])
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_ids_of_any_shape_and_type(shape, dtype):
    ids = np.full(shape, 2, dtype)
    y = look_up(by_hand(), ids)
    assert y.shape == (*shape, 2)
    assert (y == f32([3, 1])).all()
    with NativeOp(write_blob(by_hand())) as op:
        assert op.output_shape(shape) == (*shape, 2)


@pytest.mark.parametrize("wrong", [-1, 3, 2**31 - 1, -(2**31)])
def test_ids_without_a_row_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=rf"ids in \[0, 3\), got {wrong} at 4"):
        look_up(by_hand(), [[0, 1, 2], [0, wrong, 1]])


def test_other_inputs_are_refused():
    for ids in ([0.0, 1.0], [2**31], [-(2**40)]):
        with pytest.raises(ValueError, match="int32 ids"):
            look_up(by_hand(), ids)
    with pytest.raises(ValueError, match="rank 0 to 7, got rank 8"):
        look_up(by_hand(), np.zeros((1,) * 8, np.int32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": make_grid("uniform4")}, "FloatGrid"),
        ({"grid": FloatGrid(-1, 1)}, "FloatGrid"),
        ({"bias": f32([1, 2])}, "no bias"),
        ({"multiplier": f32([1, 2])}, "no multiplier"),
        ({"act_min": 0.0}, "no clamp"),
        ({"strides": (2, 2)}, "strides"),
        ({"padding": "same"}, "padding"),
        ({"groups": 2}, "groups"),
    ],
)
def test_parts_that_an_embedding_has_not(changes, message):
    with pytest.raises(ValueError, match=f"layer 'words': .*{message}"):
        dataclasses.replace(by_hand(), **changes)


@pytest.mark.parametrize("axis", [0, 1])
def test_codes_beyond_the_table_are_refused_at_load(axis):
    """Three levels leave the code 3 of 2 bits without a meaning."""
    codes = np.zeros((100, 90), np.uint16)
    codes[99, 89] = 2
    weight = PackedTensor(
        "words", codes, np.full(codes.shape[axis], 2), axis, Table(np.arange(3), f32([1]))
    )
    blob = bytearray(write_blob(embedding(weight)))
    sizes = section_sizes(bytes(blob))
    low_bits = slice(sizes["header"], sizes["header"] + sizes["codes"] // 2)
    blob[low_bits] = bytes(
        x | y for x, y in zip(blob[low_bits], blob[low_bits.stop :], strict=False)
    )
    blob[8:12] = blob_header.checksum(bytes(blob)).to_bytes(4, "little")
    for reader in (NativeOp, read_blob):
        with pytest.raises(ValueError, match=r"expected (codes below|<) 3, got 3"):
            reader(bytes(blob))


def test_all_rows_dropped():
    for encoding in (Planes(np.zeros((0, 1), np.float32), f32([1])), Floats(np.ones((2, 3)))):
        codes = np.zeros((2, 3), np.uint16) if isinstance(encoding, Planes) else np.zeros(0)
        layer = embedding(PackedTensor("words", codes, np.zeros(2, int), 0, encoding))
        np.testing.assert_array_equal(look_up(layer, [1, 0]), np.zeros((2, 3)))


def test_a_large_table_stays_packed():
    """A million 1-bit values of which only some are decoded: 128 KiB, not 4 MiB."""
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 2, (1 << 14, 64)).astype(np.uint16)
    encoding = Uniform(f32([2]), np.zeros(1, np.int32), f32([-1]))
    layer = embedding(PackedTensor("words", codes, np.ones(1 << 14, int), 0, encoding))
    blob = write_blob(layer)
    assert len(blob) == 128 + codes.size // 8 + 8 + 8
    ids = rng.integers(0, 1 << 14, 500)
    np.testing.assert_array_equal(NativeOp(blob).run(ids), 2.0 * codes[ids] - 1)


def test_float_layers_take_no_ids_and_embeddings_no_floats():
    """Whole numbers as input of other layers are values, as ever."""
    layer = random_layer(np.random.default_rng(0), "dense", (3, 2), "uniform", "float")
    x = np.array([[1, 2, 3]])
    np.testing.assert_array_equal(look_up(layer, x), look_up(layer, f32(x)))
