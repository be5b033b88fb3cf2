"""A file that differs from the model must be found out, and the layer named."""

import dataclasses

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from exportable import PAIRS, frozen, images, network

from tflite_export import VerificationError, export, flatbuffer
from tflite_export.collect import collect
from tflite_export.tflite_writer import write_packed


@pytest.fixture(scope="module")
def model():
    return frozen(network(), *PAIRS["uniform4"])


def with_layer(packed, name, **changes):
    """The packed model with parts of one layer replaced."""
    old = packed.layers[name]
    new = dataclasses.replace(old, packed=dataclasses.replace(old.packed, **changes))
    return dataclasses.replace(packed, layers={**packed.layers, name: new})


def one_code_off(packed):
    weight = packed.layers["valid"].packed.weight
    codes = weight.codes.copy()
    codes[1, 0, 3, 2] ^= 1
    return with_layer(packed, "valid", weight=dataclasses.replace(weight, codes=codes))


def bias_off(packed):
    return with_layer(packed, "hidden", bias=packed.layers["hidden"].packed.bias + 0.01)


def sign_of_multiplier_lost(packed):
    return with_layer(packed, "first", multiplier=np.abs(packed.layers["first"].packed.multiplier))


def coarser_input(packed):
    grid = packed.layers["last"].packed.grid
    return with_layer(packed, "last", grid=dataclasses.replace(grid, step=grid.step * 1.01))


def wrong_padding(packed):
    return with_layer(packed, "first", padding=((0, 2), (0, 2)))


def wrong_dilation(packed):
    return with_layer(packed, "dilated", dilations=(1, 1))


DAMAGES = {
    "valid": one_code_off,
    "hidden": bias_off,
    "first": sign_of_multiplier_lost,
    "last": coarser_input,
    "dilated": wrong_dilation,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_named(model, tmp_path, monkeypatch, name):
    monkeypatch.setattr("tflite_export.exporter.collect", lambda m: DAMAGES[name](collect(m)))
    with pytest.raises(VerificationError, match=f"layer '{name}'"):
        export(model, tmp_path / "m.tflite", sample=images())
    assert not list(tmp_path.iterdir())


def test_wrong_padding_is_found(model, tmp_path, monkeypatch):
    monkeypatch.setattr("tflite_export.exporter.collect", lambda m: wrong_padding(collect(m)))
    with pytest.raises(VerificationError, match="layer 'first': output differs"):
        export(model, tmp_path / "m.tflite", sample=images())


def test_float_layers_are_checked_with_the_whole_file(model, tmp_path, monkeypatch):
    def swap_activation(m, packed):
        written = write_packed(m, packed)
        tree = flatbuffer.read(written.data)
        for code in tree.operatorCodes:
            if code.builtinCode == schema.BuiltinOperator.TANH:
                code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.LOGISTIC
        return dataclasses.replace(written, data=flatbuffer.write(tree))

    monkeypatch.setattr("tflite_export.exporter.write_packed", swap_activation)
    with pytest.raises(VerificationError):
        export(model, tmp_path / "m.tflite", sample=images())


def test_numbers_of_a_good_file(model, tmp_path):
    result = export(model, tmp_path / "m.tflite", sample=images(5))
    checked = result.verification
    assert checked.samples == 5 + 4  # the given ones and random ones
    assert checked.codes == 9 * sum(
        int(np.prod(layer.input.shape[1:])) for layer in model.layers if hasattr(layer, "hosts")
    )
    assert 0 <= checked.ties <= checked.codes // 100
    assert 0 < checked.clean_samples <= 9
    assert 0 < checked.max_error <= 1e-4
