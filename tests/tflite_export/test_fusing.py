"""What operators of packed layers take over from their neighbours: padding, clamps."""

import keras
import numpy as np
import pytest
from exportable import frozen, images, lively_batch_norms
from operator_names import operator_names

import kerasbits as kb
from tflite_export import Interpreter, export, flatbuffer
from tflite_export.blob.writer import read_blob
from tflite_export.collect import collect
from tflite_export.tflite_writer import packed_blobs, write_packed

L = keras.layers
SIGNED = kb.Uniform(8)
WITHOUT_ZERO = kb.LeastSquaresBinary("ls2")


def exported(model, folder, inputs=SIGNED, data=None):
    """Operator names and layers of the exported and verified file."""
    keras.utils.set_random_seed(0)
    lively_batch_norms(model)
    data = images(6, tuple(model.inputs[0].shape[1:])) if data is None else data
    q = kb.quantize_model(model, kb.Uniform(4), inputs)
    kb.calibrate(q, data)
    result = export(q, folder / "m.tflite", sample=data)
    assert result.max_error <= 1e-4
    found, expected = Interpreter(result.path).predict(data), q.predict(data, verbose=0)
    for y, wanted in zip(*map(keras.tree.flatten, (found, expected)), strict=True):
        assert np.median(np.abs(y - wanted)) <= 1e-4 * np.abs(wanted).max()
    content = result.path.read_bytes()
    blobs = packed_blobs(flatbuffer.read(content))
    return operator_names(content), {path: read_blob(blob) for path, blob in blobs.items()}


def sequential(shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers])


@pytest.mark.parametrize(
    ("layer", "padding"),
    [
        (L.Conv2D(3, 3, strides=2, name="c"), ((1, 2), (0, 3))),
        (L.Conv2D(4, 2, groups=2, name="c"), ((0, 0), (1, 0))),
        (L.DepthwiseConv2D(3, dilation_rate=2, name="c"), ((2, 2), (2, 2))),
    ],
    ids=["conv", "grouped", "depthwise"],
)
def test_zero_padding_becomes_the_padding_of_the_layer(layer, padding, tmp_path):
    names, layers = exported(sequential((8, 7, 2), L.ZeroPadding2D(padding), layer), tmp_path)
    assert len(names) == 1
    assert layers["c"].padding == padding


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("padding", ["valid", "causal"])
def test_padding_of_one_axis(padding, batch, tmp_path):
    inputs = keras.Input(batch_shape=(batch, 9, 2))
    x = L.Conv1D(3, 3, padding=padding, dilation_rate=2, name="c")(L.ZeroPadding1D((2, 1))(inputs))
    names, layers = exported(keras.Model(inputs, x), tmp_path)
    assert names == ["EXPAND_DIMS", "KerasbitsConv2D", "RESHAPE"]
    assert layers["c"].padding == ((0, 0), (2 + 4 * (padding == "causal"), 1))


def test_padding_stays_where_zero_is_no_level(tmp_path):
    model = sequential((8, 8, 2), L.ZeroPadding2D(1), L.Conv2D(3, 3, name="c"))
    names, layers = exported(model, tmp_path, WITHOUT_ZERO)
    assert names == ["PAD", "KerasbitsConv2D"]
    assert layers["c"].padding == "valid"


def test_padding_stays_in_front_of_a_layer_that_pads_by_size(tmp_path):
    model = sequential((8, 8, 2), L.ZeroPadding2D(1), L.Conv2D(3, 3, padding="same"))
    assert exported(model, tmp_path)[0] == ["PAD", "KerasbitsConv2D"]


def test_padding_that_several_read(tmp_path):
    inputs = keras.Input((8, 8, 2))
    x = L.ZeroPadding2D(1)(inputs)
    both = [L.Conv2D(3, 3)(x), L.DepthwiseConv2D(3)(x)]
    names, _ = exported(keras.Model(inputs, both), tmp_path)
    assert sorted(names) == ["KerasbitsConv2D", "KerasbitsDepthwiseConv2D"]
    names, layers = exported(keras.Model(inputs, [*both, x]), tmp_path)
    assert sorted(names) == ["KerasbitsConv2D", "KerasbitsDepthwiseConv2D", "PAD"]
    assert {layer.padding for layer in layers.values()} == {((1, 1), (1, 1))}


def test_uses_of_a_shared_layer_must_be_padded_alike(tmp_path):
    inputs, conv = keras.Input((8, 8, 2)), L.Conv2D(2, 3, name="c")
    one, two = L.ZeroPadding2D(1), L.ZeroPadding2D(2)
    alike = keras.Model(inputs, conv(one(conv(one(inputs)))))
    assert exported(alike, tmp_path)[0] == ["KerasbitsConv2D"] * 2
    unlike = keras.Model(inputs, conv(two(conv(one(inputs)))))
    assert sorted(exported(unlike, tmp_path)[0]) == ["KerasbitsConv2D"] * 2 + ["PAD"] * 2


def test_other_paddings_stay(tmp_path):
    inputs = keras.Input((6, 6, 2))
    channels = keras.ops.pad(inputs, [(0, 0), (1, 1), (1, 1), (0, 2)])
    ones = keras.ops.pad(inputs, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=1.0)
    mirrored = keras.ops.pad(inputs, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="reflect")
    outputs = [L.Conv2D(2, 3)(x) for x in (channels, ones, mirrored)]
    names, layers = exported(keras.Model(inputs, outputs), tmp_path)
    assert len(names) == 6
    assert {layer.padding for layer in layers.values()} == {"valid"}


@pytest.mark.parametrize(
    ("activation", "interval"),
    [
        (L.ReLU(), (0, np.inf)),
        (L.ReLU(6.0), (0, 6)),
        (L.ReLU(4.0), (0, 4)),
        (L.Activation("relu6"), (0, 6)),
        (L.Activation("hard_tanh"), (-1, 1)),
    ],
    ids=["relu", "relu6", "relu4", "activation", "hard_tanh"],
)
@pytest.mark.parametrize("layer", [L.Conv2D, L.Conv2DTranspose], ids=["conv", "transposed"])
def test_clamps_behind_a_layer_are_its_own(layer, activation, interval, tmp_path):
    start = layer.from_config({"filters": 3, "kernel_size": 2, "name": "c"})
    model = sequential((5, 5, 2), start, L.BatchNormalization(), L.Dropout(0.1), activation)
    names, layers = exported(model, tmp_path)
    assert len(names) == 1
    assert (layers["c"].act_min, layers["c"].act_max) == interval


def test_activations_of_one_axis_and_of_shared_layers(tmp_path):
    inputs, shared = keras.Input((6, 4)), L.Conv1D(4, 3, padding="same", name="c")
    both = keras.Model(inputs, L.ReLU()(shared(L.ReLU()(shared(inputs)))))
    names, layers = exported(both, tmp_path)
    assert names == ["EXPAND_DIMS", "KerasbitsConv2D", "KerasbitsConv2D", "RESHAPE"]
    assert layers["c"].act_min == 0
    names, layers = exported(keras.Model(inputs, shared(L.ReLU()(shared(inputs)))), tmp_path)
    assert names.count("RELU") == 1
    assert layers["c"].act_min == -np.inf


def test_activations_that_others_see_past_stay(tmp_path):
    inputs = keras.Input((6,))
    x = L.Dense(4)(inputs)
    names, _ = exported(keras.Model(inputs, [x, L.ReLU()(x)]), tmp_path)
    assert names == ["KerasbitsDense", "RELU"]


def test_residual_network_has_nothing_left_over(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for strides in (1, 2):
        y = L.Conv2D(4, 3, strides, padding="same", use_bias=False)(x)
        y = L.ReLU()(L.BatchNormalization()(y))
        y = L.BatchNormalization()(L.Conv2D(4, 3, padding="same", use_bias=False)(y))
        short = L.BatchNormalization()(L.Conv2D(4, 1, strides, use_bias=False)(x))
        x = L.ReLU()(L.Add()([y, short]))
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))
    names, _ = exported(model, tmp_path)
    assert sorted(names) == ["ADD"] * 2 + ["KerasbitsConv2D"] * 6 + ["KerasbitsDense", "RESHAPE"]


def test_frozen_model_is_not_changed_by_folding():
    model = sequential((8, 8, 2), L.ZeroPadding2D(1), L.Conv2D(3, 3), L.ReLU(4.0))
    q = frozen(model, kb.Uniform(4), SIGNED, images(4, (8, 8, 2)))
    packed = collect(q)
    first = write_packed(q, packed)
    (own,), (written,) = packed.layers.values(), first.layers.values()
    assert own.packed.padding == "valid" != written.padding
    assert (own.packed.act_max, written.act_max) == (np.inf, 4)
    assert write_packed(q, packed).data == first.data
