"""Blobs of kernels that stay float, some of whose channels may be dropped."""

import dataclasses
import struct

import numpy as np
import pytest
from kernels.layers_for_tests import f32

from kerasbits.packed import FloatGrid, Floats, PackedTensor
from tflite_export.blob import header as blob_header
from tflite_export.blob.writer import PackedLayer, read_blob, section_sizes, write_blob


def test_floats_take_space_only_for_channels_that_are_kept():
    """What stands in dropped channels is not stored, even if it is not finite."""
    values = f32([[1, np.nan, 3, 7], [4, 5, 6, 8]])
    weight = PackedTensor("w", np.zeros(0), np.array([32, 0, 32, 0]), 1, Floats(values))
    blob = write_blob(PackedLayer("dense", weight, FloatGrid()))
    assert blob[50] == 32
    assert blob[128:132] == b"\x20\x00\x20\x00"
    assert struct.unpack_from("<4f", blob, 136) == (1, 4, 3, 6)
    assert section_sizes(blob)["codes"] == weight.code_bytes == 16
    back = read_blob(blob).weight
    np.testing.assert_array_equal(back.bits, weight.bits)
    np.testing.assert_array_equal(back.encoding.values, [[1, 0, 3, 0], [4, 0, 6, 0]])
    np.testing.assert_array_equal(weight.decode(), back.decode())


def test_floats_that_are_all_dropped():
    weight = PackedTensor("w", np.zeros(0), np.zeros(2, int), 1, Floats(f32([[1, 2]])))
    blob = write_blob(PackedLayer("dense", weight, FloatGrid()))
    assert blob[50] == 0
    assert "codes" not in section_sizes(blob)
    back = read_blob(blob).weight
    assert isinstance(back.encoding, Floats)
    np.testing.assert_array_equal(back.decode(), [[0, 0]])


@pytest.mark.parametrize(
    ("shape", "axis", "bits", "keep"),
    [
        ((2, 2, 3, 2), 2, [0, 32, 32], [0, 0, 1, 1, 1, 1]),
        ((2, 2, 3, 2), 3, [0, 32], [0, 1, 0, 1, 0, 1]),
        ((2, 2, 6), 2, [32, 0, 0, 32, 32, 32], [1, 0, 0, 1, 1, 1]),
    ],
)
def test_depthwise_floats_with_dropped_channels(shape, axis, bits, keep):
    """Dropped by input channel, by multiplier, or neither, which needs a kernel of rank 3."""
    values = f32(np.random.default_rng(0).normal(size=(2, 2, 6)) * keep).reshape(shape)
    weight = PackedTensor("w", np.zeros(0), np.array(bits), axis, Floats(values))
    layer = PackedLayer("depthwise_conv2d", weight, FloatGrid(), groups=3)
    blob = write_blob(layer)
    assert section_sizes(blob)["codes"] == weight.code_bytes == 4 * 4 * sum(keep)
    back = read_blob(blob)
    assert (back.weight.channel_axis, back.groups) == (axis, 3)
    np.testing.assert_array_equal(back.weight.bits, bits)
    np.testing.assert_array_equal(back.weight.encoding.values, values)


@pytest.mark.parametrize("bits", [[32, 33], [1, 32], [32, 16]])
def test_floats_of_other_widths_are_refused(bits):
    weight = PackedTensor("net/fc", np.zeros(0), np.array(bits), 1, Floats(f32([[1, 2]])))
    with pytest.raises(ValueError, match="layer 'net/fc': expected bits of floats 0 or 32"):
        PackedLayer("dense", weight, FloatGrid())
    sound = dataclasses.replace(weight, bits=np.array([32, 0]))
    blob = bytearray(write_blob(PackedLayer("dense", sound, FloatGrid())))
    blob[50], blob[128:130] = max(bits), bytes(bits)
    struct.pack_into("<I", blob, blob_header.OFFSETS["crc32"], blob_header.checksum(bytes(blob)))
    with pytest.raises(ValueError, match=r"blob, (section channel_bits|byte 50)"):
        read_blob(bytes(blob))


def test_sections_of_floats_must_fit_the_channel_bits():
    weight = PackedTensor("w", np.zeros(0), np.array([32, 0]), 1, Floats(f32([[1, 2]])))
    blob = bytearray(write_blob(PackedLayer("dense", weight, FloatGrid())))
    blob[129] = 32
    struct.pack_into("<I", blob, blob_header.OFFSETS["crc32"], blob_header.checksum(bytes(blob)))
    with pytest.raises(ValueError, match="section codes: expected 8 bytes, got 4"):
        read_blob(bytes(blob))


def test_floats_that_are_not_finite_are_refused():
    weight = PackedTensor("w", np.zeros(0), np.array([32]), 1, Floats(f32([[np.inf]])))
    with pytest.raises(ValueError, match="finite"):
        write_blob(PackedLayer("dense", weight, FloatGrid()))
