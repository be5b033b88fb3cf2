import dataclasses

import pytest

from kerasbits.bops import LayerCost, bops, relative_bops


def conv(size, kernel, c_in, c_out):
    return size * size * kernel * kernel * c_in * c_out


# MNIST LeNet-5: 5x5 valid convolutions, pools of 2.
LENET5 = [conv(24, 5, 1, 32), conv(8, 5, 32, 64), 1024 * 512, 512 * 10]
# CIFAR-10 VGG-7: 3x3 same convolutions, a pool of 2 after every second.
VGG7 = [
    conv(32, 3, 3, 128), conv(32, 3, 128, 128), conv(16, 3, 128, 256), conv(16, 3, 256, 256),
    conv(8, 3, 256, 512), conv(8, 3, 512, 512), 4 * 4 * 512 * 1024, 1024 * 10,
]  # fmt: skip


def two_bits(macs):
    """All tensors at 2 bits, but 8 for the image."""
    return [LayerCost(m, 2, 8 if i == 0 else 2) for i, m in enumerate(macs)]


def test_macs_of_the_published_networks():
    assert LENET5 == [460_800, 3_276_800, 524_288, 5_120]
    assert sum(LENET5) == 4_267_008
    assert sum(VGG7) == 615_917_568


@pytest.mark.parametrize(("macs", "percent"), [(LENET5, 0.5172), (VGG7, 0.3974)])
def test_two_bit_networks(macs, percent):
    result = relative_bops(two_bits(macs))
    assert result.joint == pytest.approx(percent, abs=5e-5)  # four printed digits
    assert result.bits_alone == result.joint
    assert result.pruning_alone == 100


def test_by_hand():
    layers = [LayerCost(100, 4, 8, keep_out=0.5), LayerCost(10, 2, 4, keep_out=1, keep_in=0.5)]
    assert bops(layers) == 100 * 4 * 8 * 0.5 + 10 * 2 * 4 * 0.5
    result = relative_bops(layers)
    assert result.joint == pytest.approx(100 * 1640 / (110 * 1024))
    assert result.bits_alone == pytest.approx(100 * 3280 / (110 * 1024))
    assert result.pruning_alone == pytest.approx(100 * 55 / 110)


def test_float_network_is_the_reference():
    result = relative_bops([LayerCost(m, 32, 32) for m in LENET5])
    assert dataclasses.astuple(result) == (100, 100, 100)


def test_pruning_half_the_channels_halves_this_layer_and_the_next():
    full = two_bits(LENET5)
    pruned = list(full)
    pruned[1] = dataclasses.replace(full[1], keep_out=0.5)
    pruned[2] = dataclasses.replace(full[2], keep_in=0.5)
    ratios = [a.bops / b.bops for a, b in zip(pruned, full, strict=True)]
    assert ratios == [1, 0.5, 0.5, 1]
    before, after = relative_bops(full), relative_bops(pruned)
    assert after.bits_alone == before.bits_alone
    assert after.joint < before.joint
    assert after.pruning_alone == pytest.approx(100 * (1 - 0.5 * sum(LENET5[1:3]) / sum(LENET5)))


def test_from_channels():
    layer = LayerCost.from_channels(1000, [4, 0, 4, 0], 8, keep_in=0.25)
    assert layer == LayerCost(1000, 4.0, 8, 0.5, 0.25)
    assert layer.bops == 1000 * 4 * 8 * 0.5 * 0.25
    mixed = LayerCost.from_channels(1000, [2, 8, 0, 0], 8)
    assert mixed.bops == pytest.approx(1000 * 8 * (2 + 8 + 0 + 0) / 4)  # mean bits, zeros included
    assert LayerCost.from_channels(1000, [6.5], 8) == LayerCost(1000, 6.5, 8)


def test_all_channels_pruned_cost_nothing():
    layer = LayerCost.from_channels(1000, [0, 0], 8)
    assert layer.bops == 0
    assert layer.keep_out == 0
    assert relative_bops([layer]).joint == 0


def test_no_layers():
    assert bops([]) == 0
    assert dataclasses.astuple(relative_bops([])) == (100, 100, 100)
    assert relative_bops([LayerCost(0, 2, 2)]).joint == 100


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("macs", -1), ("weight_bits", -0.5), ("input_bits", float("nan")),
        ("keep_out", 1.5), ("keep_in", -0.1), ("keep_in", float("nan")),
    ],
)  # fmt: skip
def test_impossible_records(field, value):
    with pytest.raises(ValueError, match=field):
        LayerCost(**{"macs": 1, "weight_bits": 2, "input_bits": 2, field: value})
