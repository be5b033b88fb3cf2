"""What a blob leaves out, and what it refuses of dilated inputs and embeddings."""

import dataclasses
import itertools
import struct

import numpy as np
import pytest
from kernels.layers_for_tests import f32, random_layer, random_weight

from kerasbits.packed import FloatGrid, PackedTensor, Planes, Uniform, UniformGrid
from tflite_export.blob import header as blob_header
from tflite_export.blob.writer import PackedLayer, read_blob, section_sizes, write_blob
from tflite_export.native import NativeOp


def change(blob, **fields):
    """The blob with fields changed and its checksum made right again."""
    formats = {"axis": "B", "padding": "B", "input_bits": "B", "input_kind": "B", "groups": "I"}
    blob = bytearray(blob)
    for field, value in fields.items():
        layout = "<f" if isinstance(value, float) else "<" + formats.get(field, "H")
        struct.pack_into(layout, blob, blob_header.OFFSETS[field], value)
    struct.pack_into("<I", blob, blob_header.OFFSETS["crc32"], blob_header.checksum(bytes(blob)))
    return bytes(blob)


def refused_by_both(blob):
    for reader in (read_blob, NativeOp):
        with pytest.raises(ValueError, match="expected"):
            reader(blob)
    return True


def dense(scale, origin, zero):
    codes = np.array([[3, 0, 1], [2, 1, 0]], np.uint16)
    encoding = Uniform(f32(scale), np.array(zero, np.int32), f32(origin))
    return PackedLayer("dense", PackedTensor("fc", codes, np.full(3, 2), 1, encoding), FloatGrid())


@pytest.mark.parametrize(
    "parts",
    itertools.product([(0.5,), (0.5, 1, 2)], [(0,), (0.25,), (0, 0, 1)], [(0,), (2,), (0, 1, 2)]),
)
def test_each_parameter_is_shared_or_not_by_itself(parts):
    layer = dense(*parts)
    blob = write_blob(layer)
    sizes = section_sizes(blob)
    for name, values in zip(("scale", "offset", "zero"), parts, strict=True):
        assert sizes.get(name, 0) == (4 * len(values) if any(values) else 0)
    np.testing.assert_array_equal(read_blob(blob).weight.decode(), layer.weight.decode())
    with NativeOp(blob) as op:
        np.testing.assert_array_equal(op.run(np.eye(2)), layer.weight.decode())


def test_planes_share_their_scales_or_their_offset():
    codes = np.array([[3, 0, 1]], np.uint16)
    for scale, offset in itertools.product([(2, 1), (2, 3)], [(0,), (5,), (1, 2, 3)]):
        planes = np.arange(1, 1 + np.prod(scale), dtype=np.float32).reshape(scale)
        weight = PackedTensor("fc", codes, np.full(3, 2), 1, Planes(planes, f32(offset)))
        blob = write_blob(PackedLayer("dense", weight, FloatGrid()))
        sizes = section_sizes(blob)
        assert sizes["scale"] == 4 * planes.size
        assert sizes.get("offset", 0) == (4 * len(offset) if any(offset) else 0)
        with NativeOp(blob) as op:
            np.testing.assert_array_equal(op.run(np.eye(1)), weight.decode())
        np.testing.assert_array_equal(read_blob(blob).weight.decode(), weight.decode())


def test_bytes_beyond_codes_and_channel_values_of_a_small_layer():
    """What ResNet-20 pays 22 times: header, one scale, one zero, and alignment."""
    weight = random_weight(np.random.default_rng(0), "uniform_tensor", (3, 3, 16, 16))
    weight = dataclasses.replace(weight, bits=np.full(16, 4))
    grid = UniformGrid(4, 0.0, 1.0, 0.0, 0.0625, 0)
    per_channel = {"bias": np.ones(16, np.float32), "multiplier": f32(np.arange(16))}
    blob = write_blob(PackedLayer("conv2d", weight, grid, **per_channel))
    assert len(blob) - weight.code_bytes - 2 * 16 * 4 == 128 + 8 + 8


def test_channel_bits_are_absent_where_they_are_all_equal():
    weight = random_weight(np.random.default_rng(0), "uniform_mixed", (4, 3))
    for bits, present in (([2, 2, 2], False), ([2, 3, 2], True), ([0, 0, 0], True)):
        changed = dataclasses.replace(
            weight, bits=np.array(bits), codes=np.zeros((4, 3), np.uint16)
        )
        blob = write_blob(PackedLayer("dense", changed, FloatGrid()))
        assert ("channel_bits" in section_sizes(blob)) == present
        np.testing.assert_array_equal(read_blob(blob).weight.bits, bits)
        NativeOp(blob).close()


def test_a_claim_of_many_channels_needs_as_many_codes():
    """Without channel bits nothing else bounds their number, and memory is for them."""
    weight = random_weight(np.random.default_rng(0), "uniform_tensor", (1, 2))
    weight = dataclasses.replace(weight, bits=np.full(2, 3), codes=np.zeros((1, 2), np.uint16))
    blob = bytearray(write_blob(PackedLayer("dense", weight, FloatGrid())))
    for out in (3, 2**20, 2**31 - 1):
        struct.pack_into("<I", blob, blob_header.OFFSETS["out_channels"], out)
        changed = change(blob)
        assert (out > 64 and refused_by_both(changed)) or read_blob(changed).out_channels == out


WINDOWS = [
    {"input_dilation_h": 0},
    {"input_dilation_w": 0},
    {"kernel_h": 0},
    {"padding": 1},  # SAME, while the input is dilated
    {"padding": 0},  # explicit pads are left over
    {"axis": 1},
    {"groups": 5},
]


@pytest.mark.parametrize("op", ["conv2d", "depthwise_conv2d"])
@pytest.mark.parametrize("fields", WINDOWS)
def test_windows_that_are_refused(op, fields):
    shape = (2, 3, 3, 4) if op == "conv2d" else (2, 3, 4)
    window = {"input_dilations": (2, 1), "padding": ((1, 0), (0, 2))}
    if op == "depthwise_conv2d":
        window["groups"] = 4
    layer = random_layer(np.random.default_rng(1), op, shape, "uniform", "uniform4", **window)
    blob = write_blob(layer)
    assert read_blob(change(blob, input_dilation_h=3)).input_dilations == (3, 1)
    if fields == {"padding": 1}:
        fields = fields | dict.fromkeys(("pad_top", "pad_bottom", "pad_left", "pad_right"), 0)
        assert read_blob(change(blob, **fields, input_dilation_h=1)).padding == "same"
    assert refused_by_both(change(blob, **fields))


EMBEDDINGS = [
    {"axis": 2},
    {"kernel_w": 2},
    {"stride_h": 2},
    {"input_dilation_w": 2},
    {"padding": 1},
    {"groups": 3},
    {"act_min": 0.0},
    {"act_max": 6.0},
    {"act_min": float("inf")},
    {"input_lo": -1.0},
    {"input_hi": 1.0},
    {"input_kind": 1, "input_bits": 4, "input_step": 1.0},
]


@pytest.mark.parametrize("fields", EMBEDDINGS)
def test_embeddings_that_are_refused(fields):
    weight = random_weight(np.random.default_rng(2), "uniform", (6, 3), 0)
    blob = write_blob(PackedLayer("embedding", weight, FloatGrid()))
    assert refused_by_both(change(blob, **fields))


@pytest.mark.parametrize("section", ["bias", "multiplier"])
def test_an_embedding_has_no_bias_or_multiplier(section):
    weight = random_weight(np.random.default_rng(2), "uniform", (6, 3), 0)
    blob = write_blob(PackedLayer("embedding", weight, FloatGrid()))
    header, sections = blob_header.parse(blob)
    fields = {name: value for name, value in header.items() if not name.endswith("_bytes")}
    assert blob_header.assemble(fields, sections) == blob
    assert refused_by_both(blob_header.assemble(fields, sections | {section: bytes(24)}))
