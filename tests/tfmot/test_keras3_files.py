"""The program `tflite_export.convert` takes what tf_keras saves."""

import keras
import numpy as np
import pytest
import tf_keras
from exportable import images

import kerasbits as kb
from kerasbits import tfmot
from tflite_export import export
from tflite_export.convert import main
from tflite_export.loading import keras_version

SHAPE = (6, 6, 3)


@pytest.fixture(scope="module")
def frozen():
    tf_keras.utils.set_random_seed(2)
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.Conv2D(3, 3, activation="relu", name="conv", input_shape=SHAPE),
            layers.Flatten(name="flat"),
            layers.Dense(4, name="fc"),
        ],
        name="small",
    )
    q = tfmot.quantize_model(model, "bitpruning", "uniform")
    kb.calibrate(q, images(8, SHAPE))
    kb.freeze(q)
    q.compile("adam", "mse")
    return q


def convert(capsys, *arguments):
    status = main(["convert", *arguments])
    return status, capsys.readouterr()


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "saved_model"])
def test_every_format(frozen, tmp_path, capsys, name):
    frozen.save(tmp_path / name)
    expected = export(frozen, tmp_path / "expected.tflite").path.read_bytes()
    status, said = convert(
        capsys, f"--model={tmp_path / name}", f"--output={tmp_path / 'm.tflite'}"
    )
    assert (status, said.err) == (0, "")
    assert (tmp_path / "m.tflite").read_bytes() == expected


def test_a_model_that_is_not_frozen(tmp_path, capsys):
    inputs = tf_keras.layers.Input((4,), name="x")
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(3, name="fc")(inputs))
    tfmot.quantize_model(model, "bitpruning").save(tmp_path / "m.keras")
    flags = [f"--model={tmp_path / 'm.keras'}", f"--output={tmp_path / 'm.kbits'}"]
    status, said = convert(capsys, *flags)
    assert status == 1
    assert said.err.startswith("convert: layer 'fc', kernel: expected frozen bits")
    np.savez(tmp_path / "x.npz", x=np.ones((2, 4), np.float32))
    status, said = convert(capsys, *flags, "--freeze", f"--sample={tmp_path / 'x.npz'}")
    assert (status, said.err) == (0, "")


def test_models_without_a_twin_are_one_line(tmp_path, capsys):
    inputs = tf_keras.layers.Input((6, 2), name="x")
    local = tf_keras.layers.LocallyConnected1D(2, 3, name="local")
    tf_keras.Model(inputs, local(inputs)).save(tmp_path / "m.h5")
    flags = f"--model={tmp_path / 'm.h5'}", f"--output={tmp_path / 'm.tflite'}"
    status, said = convert(capsys, *flags)
    assert status == 1
    assert said.err.count("\n") == 1
    assert said.err.startswith("convert: layer 'local' (LocallyConnected1D): expected a layer that")


def test_who_wrote_a_file(frozen, tmp_path):
    ours = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    for name in ("m.keras", "m.h5"):
        ours.save(tmp_path / f"3_{name}")
        frozen.save(tmp_path / f"2_{name}")
        assert keras_version(tmp_path / f"3_{name}").startswith("3.")
        assert keras_version(tmp_path / f"2_{name}").startswith("2.")
    (tmp_path / "other").write_bytes(b"hello")
    assert keras_version(tmp_path / "other") == ""
