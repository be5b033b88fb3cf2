"""The networks of the examples: shapes, sizes, and names that the recipes rely on."""

import importlib
import pathlib

import keras
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def networks():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples"))
        yield importlib.import_module("networks")


def kernel_weights(model):
    return sum(w.size for layer in model.layers for w in map(np.asarray, layer.get_weights())
               if w.ndim > 1)  # fmt: skip


def test_sizes_are_those_of_the_papers(networks):
    assert kernel_weights(networks.lenet5()) == 61_470
    resnet = networks.resnet20()
    assert kernel_weights(resnet) == 270_896
    main = [n for n in (la.name for la in resnet.layers) if "conv" in n and "norm" not in n]
    assert len(main) + 1 == 20  # and the last layer; shortcuts are not counted


def test_options_change_shapes(networks):
    resnet = networks.resnet20((16, 16, 1), classes=4, width=4, blocks=1)
    assert resnet.input_shape == (None, 16, 16, 1)
    assert resnet.output_shape == (None, 4)
    assert kernel_weights(resnet) < 8_000
    half = networks.mobilenet_v2_small((16, 16, 3), 5, alpha=0.25)
    assert half.output_shape == (None, 5)
    channels = [la.filters for la in half.layers if isinstance(la, keras.layers.Conv2D)
                and not isinstance(la, keras.layers.DepthwiseConv2D)]  # fmt: skip
    assert all(n % 8 == 0 for n in channels)


def test_mobilenet_has_what_gives_it_its_name(networks):
    model = networks.mobilenet_v2_small()
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds.count("DepthwiseConv2D") == sum(n for _, _, n, _ in networks.STAGES)
    assert kinds.count("Add") == 3  # second blocks of three stages have the shape of the first
    assert {la.max_value for la in model.layers if isinstance(la, keras.layers.ReLU)} == {6.0}


def test_two_inputs_share_layers(networks):
    model = networks.two_inputs((8, 8, 1), classes=3, width=2)
    names = [layer.name for layer in model.layers]
    assert names.count("conv1") == names.count("embed") == 1
    left, right = np.ones((1, 8, 8, 1), np.float32), np.zeros((1, 8, 8, 1), np.float32)
    assert model([left, right]).shape == (1, 3)
    assert not np.allclose(model([left, right]), model([right, left]))


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "mobilenet_v2_small", "two_inputs"])
def test_rules_of_the_recipes_match(networks, name):
    layers = {layer.name for layer in getattr(networks, name)().layers}
    assert {"conv1", "logits"} <= layers
