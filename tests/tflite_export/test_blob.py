import dataclasses
import itertools
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.layers_for_tests import ENCODINGS, GRIDS, f32, make_grid, random_layer, random_weight

from kerasbits.packed import FloatGrid, PackedTensor, Planes, Table, Uniform, UniformGrid
from tflite_export.blob import header as blob_header
from tflite_export.blob.writer import PackedLayer, read_blob, section_sizes, write_blob

SHAPES = {"dense": (13, 5), "conv2d": (3, 2, 3, 5), "depthwise_conv2d": (3, 3, 4, 2)}


def same(a, b, name=""):
    """Whether two records hold the same, arrays bit by bit."""
    if dataclasses.is_dataclass(a):
        assert type(a) is type(b)
        for field in dataclasses.fields(a):
            if field.name not in ("name", "channel_axis"):
                same(getattr(a, field.name), getattr(b, field.name), field.name)
    elif isinstance(a, np.ndarray):
        wide = np.broadcast_to(b, np.broadcast_shapes(np.shape(a), np.shape(b)))
        np.testing.assert_array_equal(np.broadcast_to(a, wide.shape), wide, err_msg=name)
    elif isinstance(a, float):
        assert np.float32(a) == np.float32(b), name
    else:
        assert a == b, name


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("op", SHAPES)
def test_round_trip_of_encodings(op, encoding):
    rng = np.random.default_rng(len(encoding))
    layer = random_layer(rng, op, SHAPES[op], encoding, "uniform8")
    blob = write_blob(layer)
    back = read_blob(blob)
    if op != "depthwise_conv2d":
        same(layer, back)
    np.testing.assert_array_equal(layer.weight.decode(), back.weight.decode())
    assert write_blob(back) == blob
    assert write_blob(layer) == blob


@pytest.mark.parametrize("grid", GRIDS)
def test_round_trip_of_grids(grid):
    layer = random_layer(np.random.default_rng(1), "dense", (7, 3), "uniform", grid)
    same(layer, read_blob(write_blob(layer)))


def test_clip_of_planes():
    rng = np.random.default_rng(1)
    free = read_blob(write_blob(random_layer(rng, "dense", (7, 3), "uniform", "planes5"))).grid
    assert (free.lo, free.hi) == (-np.inf, np.inf)
    layer = random_layer(rng, "dense", (7, 3), "uniform", "planes3_clipped")
    blob = write_blob(layer)
    assert struct.unpack_from("<ff", blob, 68) == (-1.375, float(np.float32(1.2)))
    x = f32([-9, -1.3, 0, 1.3, 9, np.inf, np.nan])
    np.testing.assert_array_equal(read_blob(blob).grid.codes(x), layer.grid.codes(x))


@pytest.mark.parametrize("axis", [2, 3])
def test_depthwise_channel_axis(axis):
    rng = np.random.default_rng(2)
    layer = random_layer(
        rng, "depthwise_conv2d", (3, 2, 4, 3), "uniform_mixed", "uniform4", axis=axis
    )
    back = read_blob(write_blob(layer))
    assert back.weight.channel_axis == axis
    same(layer, back)


def test_depthwise_with_parameters_of_its_own_for_each_output():
    rng = np.random.default_rng(3)
    layer = random_layer(rng, "depthwise_conv2d", (3, 2, 6), "uniform_mixed", "uniform4", groups=3)
    back = read_blob(write_blob(layer))
    assert back.weight.shape == (3, 2, 6)
    same(layer, back)


@pytest.mark.parametrize("padding", ["valid", "same", ((1, 2), (0, 3))])
def test_geometry(padding):
    rng = np.random.default_rng(4)
    window = {"padding": padding, "strides": (2, 3), "dilations": (1, 4), "groups": 2}
    layer = random_layer(rng, "conv2d", (3, 2, 3, 6), "uniform", "float", **window)
    same(layer, read_blob(write_blob(layer)))


def tensor(codes, bits, encoding):
    return PackedTensor("net/fc", np.array(codes, np.uint16), np.array(bits), 1, encoding)


def hand_made():
    """Two inputs, three outputs of 2, 0 and 1 bits."""
    encoding = Uniform(f32([0.5, 1, 2]), np.array([1, 0, 0], np.int32), f32([0, 0, 0]))
    weight = tensor([[3, 0, 1], [2, 0, 0]], [2, 0, 1], encoding)
    return PackedLayer("dense", weight, FloatGrid(), bias=f32([1, 2, 3]))


def test_bytes_of_a_hand_made_layer():
    blob = write_blob(hand_made())
    assert blob[:8] == b"KBIT\x02\x00\x00\x00"
    assert struct.unpack_from("<III2H", blob, 12) == (3, 2, 1, 1, 1)
    assert struct.unpack_from("<ff", blob, 60) == (-np.inf, np.inf)
    assert blob[50] == 2
    assert struct.unpack_from("<10I", blob, 88) == (3, 24, 12, 0, 12, 0, 0, 12, 0, 0)
    assert blob[128:136] == b"\x02\x00\x01" + bytes(5)
    # Width 1: channel 2, codes 1, 0. Width 2: channel 0, codes 3, 2: low bits 1, 0, high 1, 1.
    words = struct.unpack_from("<3Q", blob, 136)
    assert words == (0b01, 0b01, 0b11)
    assert struct.unpack_from("<3f4x3i4x3f", blob, 160) == (0.5, 1, 2, 1, 0, 0, 1, 2, 3)
    assert len(blob) == 208


@given(
    bits=st.lists(st.integers(0, 16), min_size=1, max_size=9),
    row=st.integers(1, 40),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_codes_take_as_many_bytes_as_the_format_says(bits, row, seed):
    rng = np.random.default_rng(seed)
    bits = np.array(bits)
    codes = (rng.random((row, len(bits))) * 2.0**bits).astype(np.uint16)
    encoding = Uniform(f32([0.5]), np.zeros(1, np.int32), f32([0]))
    layer = PackedLayer("dense", PackedTensor("w", codes, bits, 1, encoding), FloatGrid())
    blob = write_blob(layer)
    sizes = section_sizes(blob)
    formula = sum(b * 8 * -(-int(np.sum(bits == b)) * row // 64) for b in range(1, 17))
    assert sizes.get("codes", 0) == formula == layer.weight.code_bytes
    np.testing.assert_array_equal(read_blob(blob).weight.codes, codes)


@pytest.mark.parametrize("bits", range(1, 9))
def test_size_of_a_whole_blob(bits):
    """Header, codes and one scale. The offset is 0, and all channels have the same bits."""
    codes = np.zeros((100, 33), np.uint16)
    encoding = Uniform(f32([0.5]), np.zeros(1, np.int32), f32([0]))
    weight = PackedTensor("w", codes, np.full(33, bits), 1, encoding)
    blob = write_blob(PackedLayer("dense", weight, FloatGrid()))
    code_bytes = bits * 8 * 52  # 3300 codes are 52 words a plane
    assert len(blob) == 128 + code_bytes + 8
    assert weight.code_bytes == code_bytes
    assert sum(section_sizes(blob).values()) == len(blob)


def test_equal_channels_are_written_once():
    scale = np.full(3, 0.25, np.float32)
    encoding = Uniform(scale, np.full(3, 2, np.int32), f32([0, 0, 0]))
    weight = tensor([[3, 0, 1], [2, 0, 0]], [2, 2, 2], encoding)
    blob = write_blob(PackedLayer("dense", weight, FloatGrid(), multiplier=f32([1, 1, 1])))
    sizes = section_sizes(blob)
    assert (sizes["scale"], sizes["zero"]) == (4, 4)
    assert not {"channel_bits", "offset", "multiplier"} & set(sizes)
    np.testing.assert_array_equal(read_blob(blob).weight.decode(), weight.decode())


def test_all_channels_dropped():
    encoding = Planes(np.zeros((0, 1), np.float32), f32([0]))
    layer = PackedLayer("dense", tensor([[0, 0]], [0, 0], encoding), FloatGrid())
    back = read_blob(write_blob(layer))
    assert "codes" not in section_sizes(write_blob(layer))
    np.testing.assert_array_equal(back.weight.decode(), np.zeros((1, 2)))


def change(blob, field, value, fmt):
    """The blob with one field changed and its checksum made right again."""
    blob = bytearray(blob)
    struct.pack_into("<" + fmt, blob, blob_header.OFFSETS[field], value)
    struct.pack_into("<I", blob, blob_header.OFFSETS["crc32"], blob_header.checksum(bytes(blob)))
    return bytes(blob)


WRONG_FIELDS = [
    ("version", 1, "H"),
    ("op", 4, "B"),
    ("op", 3, "B"),
    ("op", 2, "B"),
    ("encoding", 4, "B"),
    ("encoding", 1, "B"),
    ("encoding", 2, "B"),
    ("encoding", 3, "B"),
    ("out_channels", 0, "I"),
    ("out_channels", 4, "I"),
    ("out_channels", 2**32 - 1, "I"),
    ("kernel_h", 3, "H"),
    ("kernel_w", 0, "H"),
    ("in_channels", 0, "I"),
    ("in_channels", 200, "I"),
    ("in_channels", 2**31, "I"),
    ("groups", 0, "I"),
    ("groups", 3, "I"),
    ("stride_h", 0, "H"),
    ("stride_w", 2, "H"),
    ("dilation_h", 0, "H"),
    ("dilation_w", 2, "H"),
    ("input_dilation_h", 0, "H"),
    ("input_dilation_w", 2, "H"),
    ("padding", 1, "B"),
    ("padding", 3, "B"),
    ("axis", 1, "B"),
    ("pad_left", 1, "H"),
    ("act_min", np.nan, "f"),
    ("act_max", np.nan, "f"),
    ("weight_bits", 3, "B"),
    ("table_length", 1, "H"),
    ("input_kind", 4, "B"),
    ("input_kind", 1, "B"),
    ("input_kind", 2, "B"),
    ("input_kind", 3, "B"),
    ("input_bits", 8, "B"),
    ("input_signed", 1, "B"),
    ("input_length", 1, "H"),
    ("reserved", 1, "H"),
    ("input_lo", np.nan, "f"),
    ("channel_bits_bytes", 0, "I"),
    ("channel_bits_bytes", 4, "I"),
    ("codes_bytes", 2**32 - 1, "I"),
    ("scale_bytes", 16, "I"),
    ("scale_bytes", 0, "I"),
    ("bias_bytes", 0, "I"),
]


@pytest.mark.parametrize(("field", "value", "fmt"), WRONG_FIELDS)
def test_fields_out_of_range_are_refused(field, value, fmt):
    with pytest.raises(ValueError, match="expected"):
        read_blob(change(write_blob(hand_made()), field, value, fmt))


@pytest.mark.parametrize("grid", ["float_clipped", "uniform4", "planes3_clipped"])
@pytest.mark.parametrize(("field", "value"), [("input_lo", 5.0), ("input_hi", np.nan)])
def test_a_clip_that_is_no_range_is_refused(grid, field, value):
    layer = dataclasses.replace(hand_made(), grid=make_grid(grid))
    with pytest.raises(ValueError, match="input_lo"):
        read_blob(change(write_blob(layer), field, value, "f"))
    swapped = dataclasses.replace(layer.grid, lo=layer.grid.hi, hi=layer.grid.lo)
    with pytest.raises(ValueError, match="layer 'net/fc': expected lo <= hi"):
        write_blob(dataclasses.replace(layer, grid=swapped))


@pytest.mark.parametrize(
    ("field", "value", "fmt"),
    [
        ("input_step", 0.0, "f"),
        ("input_step", np.inf, "f"),
        ("input_origin", np.nan, "f"),
        ("input_zero", 2**25, "i"),
        ("input_bits", 17, "B"),
        ("input_bits", 0, "B"),
        ("input_hi", -3.0, "f"),
    ],
)
def test_input_fields_out_of_range_are_refused(field, value, fmt):
    layer = dataclasses.replace(hand_made(), grid=make_grid("uniform4"))
    with pytest.raises(ValueError, match=f"{field}|input_lo"):
        read_blob(change(write_blob(layer), field, value, fmt))


def test_every_flipped_byte_is_refused():
    blob = write_blob(hand_made())
    for i in range(len(blob)):
        broken = bytearray(blob)
        broken[i] ^= 0x11
        with pytest.raises(ValueError, match="expected"):
            read_blob(bytes(broken))


def test_every_truncation_is_refused():
    blob = write_blob(hand_made())
    for size in itertools.chain(range(0, len(blob), 7), [len(blob) - 8]):
        with pytest.raises(ValueError, match="expected"):
            read_blob(blob[:size])
    with pytest.raises(ValueError, match="expected"):
        read_blob(blob + bytes(8))


def test_set_bits_behind_the_last_code_are_refused():
    blob = bytearray(write_blob(hand_made()))
    blob[136] |= 0b100
    struct.pack_into("<I", blob, 8, blob_header.checksum(bytes(blob)))
    with pytest.raises(ValueError, match="zero bits behind"):
        read_blob(bytes(blob))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"op": "conv3d"}, "op among"),
        ({"op": "conv2d"}, "rank 4"),
        ({"bias": f32([1])}, "bias of shape"),
        ({"multiplier": f32([1, 2])}, "multiplier of shape"),
        ({"bias": f32([1, np.nan, 2])}, "finite"),
        ({"strides": (0, 1)}, "positive strides"),
        ({"padding": "full"}, "padding"),
        ({"groups": 3}, "groups"),
        ({"act_min": 2.0, "act_max": 1.0}, "act_min"),
        ({"grid": UniformGrid(17, 0, 1, 0, 0.1, 0)}, "input bits"),
        ({"grid": UniformGrid(8, 0, 1, 0, 0.0, 0)}, "positive step"),
        ({"grid": UniformGrid(8, 0, 1, 0, 0.1, 2**25)}, "input zero"),
        ({"weight": tensor([[9, 0, 1]], [2, 0, 1], hand_made().weight.encoding)}, "codes below"),
        ({"weight": tensor([[3, 0, 1]], [2, 1, 1], Table(np.arange(4), f32([1])))}, "one width"),
        ({"weight": tensor([[3, 0, 1]], [2, 2, 2], Table(np.arange(3), f32([1])))}, "3 levels"),
        ({"weight": tensor([[3, 0, 1]], [2, 2, 2], Planes(f32([[1]]), f32([1])))}, "2 planes"),
        ({"weight": random_weight(np.random.default_rng(0), "uniform", (4, 3), 0)}, "channel axis"),
    ],
)
def test_layers_that_do_not_fit_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message) as info:
        write_blob(dataclasses.replace(hand_made(), **{"groups": 1, **changes}))
    name = changes["weight"].name if "weight" in changes else "net/fc"
    assert f"layer '{name}'" in str(info.value)
