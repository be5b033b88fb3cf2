"""The networks of the examples: shapes, sizes, names, and the same ones in both kinds of Keras."""

import keras
import numpy as np
import pytest
from example_modules import example

networks = example("networks")

SMALL = {
    "lenet5": {},
    "binary_lenet5": {},
    "vgg7": {"width": 4, "hidden": 8},
    "resnet8": {"width": 4},
    "resnet20": {"width": 4},
    "mobilenet_v2_small": {"alpha": 0.25, "stages": ((1, 16, 1, 1), (6, 24, 2, 2))},
}
"""Options that make them quick to build."""


def kernel_weights(model):
    return sum(w.size for layer in model.layers for w in map(np.asarray, layer.get_weights())
               if w.ndim > 1)  # fmt: skip


def test_all_networks_are_here():
    assert set(SMALL) == set(networks.NETWORKS)


def test_sizes_are_those_of_the_papers():
    assert kernel_weights(networks.lenet5()) == 61_470
    resnet = networks.resnet20()
    assert kernel_weights(resnet) == 270_896
    main = [n for n in (la.name for la in resnet.layers) if "conv" in n and "norm" not in n]
    assert len(main) + 1 == 20  # and the last layer; shortcuts are not counted
    channels = [(3, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    convolutions = sum(9 * a * b for a, b in channels)
    dense = 4 * 4 * 512 * 1024 + 1024 * 10
    assert kernel_weights(networks.vgg7()) == convolutions + dense


def test_the_small_resnet_has_one_block_a_stage():
    small = networks.resnet8((8, 8, 3), 10, width=4)
    names = [layer.name for layer in small.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len([n for n in names if "shortcut" not in n]) + 1 == 8
    other = networks.resnet20((8, 8, 3), 10, width=4, blocks=1)
    assert [w.shape for w in small.weights] == [w.shape for w in other.weights]


def test_options_change_shapes():
    resnet = networks.resnet20((16, 16, 1), classes=4, width=4, blocks=1)
    assert resnet.input_shape == (None, 16, 16, 1)
    assert resnet.output_shape == (None, 4)
    assert kernel_weights(resnet) < 8_000
    half = networks.mobilenet_v2_small((16, 16, 3), 5, alpha=0.25)
    assert half.output_shape == (None, 5)
    channels = [la.filters for la in half.layers if isinstance(la, keras.layers.Conv2D)
                and not isinstance(la, keras.layers.DepthwiseConv2D)]  # fmt: skip
    assert all(n % 8 == 0 for n in channels)


def test_mobilenet_has_what_gives_it_its_name():
    model = networks.mobilenet_v2_small()
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds.count("DepthwiseConv2D") == sum(n for _, _, n, _ in networks.STAGES)
    assert kinds.count("Add") == 3  # second blocks of three stages have the shape of the first
    assert {la.max_value for la in model.layers if isinstance(la, keras.layers.ReLU)} == {6.0}


def test_two_inputs_share_layers():
    model = networks.two_inputs((8, 8, 1), classes=3, width=2)
    names = [layer.name for layer in model.layers]
    assert names.count("conv1") == names.count("embed") == 1
    left, right = np.ones((1, 8, 8, 1), np.float32), np.zeros((1, 8, 8, 1), np.float32)
    assert model([left, right]).shape == (1, 3)
    assert not np.allclose(model([left, right]), model([right, left]))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(8, 8, 1), (19, 12, 3)], ids=str)
def test_both_kinds_of_keras_have_the_same_network(name, shape):
    tf_keras = pytest.importorskip("tf_keras")
    make, options = networks.NETWORKS[name], SMALL[name]
    ours = make(shape, 3, keras=keras, **options)
    theirs = make(shape, 3, keras=tf_keras, **options)
    assert type(theirs).__module__.startswith("tf_keras")
    with_weights = [[la.name for la in m.layers if la.weights] for m in (ours, theirs)]
    assert with_weights[0] == with_weights[1]
    assert with_weights[0][0] == "conv1"
    assert with_weights[0][-1] == "logits"
    rng = np.random.default_rng(0)
    weights = [rng.uniform(0.1, 0.6, w.shape) * rng.choice([-1, 1], w.shape) for w in ours.weights]
    weights = [
        abs(w) if v.name == "moving_variance" else w
        for v, w in zip(ours.weights, weights, strict=True)
    ]
    ours.set_weights(weights)
    theirs.set_weights(weights)
    x = rng.uniform(-1, 1, (2, *shape)).astype(np.float32)
    found, expected = np.asarray(theirs(x)), np.asarray(ours(x))
    assert found.shape == (2, 3)
    assert np.ptp(expected) > 1e-3  # the input matters
    # The same float32 operations, summed in other orders.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())


@pytest.mark.parametrize("name", SMALL)
def test_inputs_have_names_that_do_not_count_up(name):
    make = networks.NETWORKS[name]
    models = [make((12, 12, 1), 3, **SMALL[name]) for _ in range(2)]
    assert [m.inputs[0].name for m in models] == ["image", "image"]
    # Else a file exported from a second model of a process would differ from the first one's.
    assert models[0].get_config() == models[1].get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: networks.lenet5((3, 28, 1)), "'lenet5': expected images of at least 4x4 .* 3x28"),
        (lambda: networks.vgg7((28, 7, 1)), "'vgg7': expected images of at least 8x8 .* 28x7"),
        (lambda: networks.resnet20((32, 32)), r"expected images of \(rows, .* shape \(32, 32\)"),
        (lambda: networks.resnet8((8, 8, 1), 0), "'resnet8': expected classes .* got 0"),
        (lambda: networks.resnet20(width=2.5), "'resnet20': expected width .* got 2.5"),
        (lambda: networks.resnet20(blocks=0), "expected blocks .* got 0"),
        (lambda: networks.mobilenet_v2_small(alpha=0), "expected 0 < alpha < 100, got 0"),
        (lambda: networks.mobilenet_v2_small(alpha="x"), "expected 0 < alpha < 100, got 'x'"),
        (lambda: networks.mobilenet_v2_small(stages=((1, 16, 0, 1),)), "expected blocks .* got 0"),
        (lambda: networks.mobilenet_v2_small(stages=((1, 16),)), r"expected stages .* \(1, 16\)"),
        (lambda: networks.mobilenet_v2_small(stages=3), "expected stages .* got 3"),
    ],
)
def test_networks_that_do_not_exist(make, message):
    with pytest.raises(ValueError, match=message):
        make()
