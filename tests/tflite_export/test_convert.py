"""The program that exports a saved model."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from exportable import PAIRS, SHAPE, frozen, images, network

import kerasbits as kb
from tflite_export import export
from tflite_export.contents.reading import read_contents
from tflite_export.convert import main

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A frozen model and its .keras file."""
    q = frozen(network(), *PAIRS["uniform4"])
    path = tmp_path_factory.mktemp("convert") / "m.keras"
    q.save(path)
    return q, path


@pytest.fixture(scope="module")
def unfrozen(tmp_path_factory):
    q = kb.quantize_model(network(), kb.BitPruning(bits=4.5), kb.Uniform(8))
    kb.calibrate(q, images(8))
    path = tmp_path_factory.mktemp("convert") / "unfrozen.keras"
    q.save(path)
    return path


def convert(capsys, **flags):
    arguments = [f"--{k}={v}" if v is not True else f"--{k}" for k, v in flags.items()]
    status = main(["convert", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_writes_the_file_that_export_writes(saved, tmp_path, capsys):
    q, path = saved
    status, out, err = convert(capsys, model=path, output=tmp_path / "m.tflite")
    assert (status, err) == (0, "")
    expected = export(q, tmp_path / "again.tflite", verify=False)
    assert (tmp_path / "m.tflite").read_bytes() == expected.path.read_bytes()
    assert f"{expected.file_bytes:,} bytes" in out
    assert "verified to" in out
    for layer in expected.layers:
        assert f" {layer.name} " in out


@pytest.mark.parametrize(
    ("name", "flags", "kind", "container"),
    [
        ("m.kbits", {}, "kbits", "packed"),
        ("m.tflite", {"profile": "stock"}, "TFLite", "INT4"),
        ("m.tflite", {"profile": "stock", "narrowest": 8}, "TFLite", "INT8"),
        ("m.tflite", {"profile": "stock", "activations": "int8"}, "TFLite", "INT8"),
    ],
)
def test_every_kind_of_file(saved, tmp_path, capsys, name, flags, kind, container):
    _, path = saved
    status, out, err = convert(capsys, model=path, output=tmp_path / name, **flags)
    assert (status, err) == (0, "")
    assert container in out
    contents = read_contents(tmp_path / name)
    assert contents.kind == kind
    assert len(contents.layers) == 5
    assert container in {layer.container for layer in contents.layers}


def test_verification_can_be_left_out(saved, tmp_path, capsys):
    status, out, _ = convert(capsys, model=saved[1], output=tmp_path / "m.tflite", verify="false")
    assert status == 0
    assert "not verified" in out


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_sample_from_a_file(saved, tmp_path, capsys, kind):
    path = tmp_path / f"x.{kind}"
    np.save(path, images(3)) if kind == "npy" else np.savez(path, images=images(3))
    flags = {"model": saved[1], "output": tmp_path / "m.tflite", "sample": path}
    assert convert(capsys, **flags)[0] == 0
    np.savez(tmp_path / "two.npz", a=images(1), b=images(1))
    status, _, err = convert(capsys, **{**flags, "sample": tmp_path / "two.npz"})
    assert status == 1
    assert err.startswith(f"convert: sample '{tmp_path}/two.npz': expected arrays for ['")


def test_samples_of_several_inputs_go_by_name(tmp_path, capsys):
    inputs = [keras.Input((n,), name=name) for n, name in ((3, "left"), (4, "right"))]
    both = keras.layers.Concatenate()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="fc")(both))
    data = [np.ones((4, n), np.float32) for n in (3, 4)]
    frozen(model, kb.Uniform(4), kb.Uniform(8), [data]).save(tmp_path / "m.keras")
    np.savez(tmp_path / "x.npz", right=data[1], left=data[0])
    flags = {"model": tmp_path / "m.keras", "output": tmp_path / "m.tflite"}
    assert convert(capsys, **flags, sample=tmp_path / "x.npz")[0] == 0


def test_bits_that_still_move(unfrozen, tmp_path, capsys):
    flags = {"model": unfrozen, "output": tmp_path / "m.tflite"}
    status, _, err = convert(capsys, **flags)
    assert status == 1
    assert err.count("\n") == 1
    assert err.startswith("convert: layer 'first', kernel: expected frozen bits")
    assert err.endswith("or use --freeze\n")
    assert not list(tmp_path.iterdir())
    assert convert(capsys, **flags, freeze=True)[0] == 0
    assert {w for la in read_contents(tmp_path / "m.tflite").layers for w in la.widths} == {5}


def bad_arguments(saved, folder):
    model, output = {"model": saved[1]}, {"output": folder / "m.tflite"}
    (folder / "broken.keras").write_bytes(b"hello")
    (folder / "broken.npy").write_bytes(b"hello")
    np.save(folder / "narrow.npy", np.ones((2, 3), np.float32))
    np.save(folder / "nan.npy", np.full((1, *SHAPE), np.nan, np.float32))
    missing = "expected a .keras or .h5 file or the folder of a SavedModel, got no file"
    return [
        (output, 2, "expected --model=FILE, got none"),
        (model, 2, "expected --output=FILE, got none"),
        ({**model, **output, "profile": "small"}, 2, "value should be one of <packed|stock>"),
        ({"model": "none.keras", **output}, 1, f"model 'none.keras': {missing}"),
        ({"model": folder / "broken.keras", **output}, 1, "broken.keras': Keras cannot load it"),
        ({**model, "output": folder / "m.bin"}, 1, "a path ending in .tflite or .kbits"),
        ({**model, "output": folder / "no" / "m.tflite"}, 1, "expected an existing folder"),
        ({**model, "output": folder / "m.kbits", "profile": "stock"}, 1, "ending in .tflite"),
        ({**model, **output, "activations": "int8"}, 1, "expected profile 'stock'"),
        ({**model, **output, "narrowest": 8}, 1, "expected profile 'stock'"),
        ({**model, **output, "sample": "none.npy"}, 1, "sample 'none.npy': expected a .npy"),
        ({**model, **output, "sample": folder / "broken.npy"}, 1, "expected a .npy or .npz file"),
        ({**model, **output, "sample": folder / "narrow.npy"}, 1, "expected shape (samples, 9,"),
        ({**model, **output, "sample": folder / "nan.npy"}, 1, "expected finite sample"),
    ]


def test_errors_are_one_clear_line(saved, tmp_path, capsys):
    for flags, expected, text in bad_arguments(saved, tmp_path):
        status, _, err = convert(capsys, **flags)
        assert status == expected, flags
        assert err.startswith("convert: "), flags
        assert err.count("\n") == 1, flags
        assert text in err, (flags, err)
    assert not (tmp_path / "m.tflite").exists()


def test_help_names_every_flag(capsys):
    status, out, _ = convert(capsys, help=True)
    assert status == 0
    for flag in ("activations=float|int8", "freeze", "model=FILE", "narrowest=2|4|8",
                 "output=FILE", "sample=FILE", "profile=packed|stock", "[no]verify"):  # fmt: skip
        assert f"\n  --{flag}\n" in out, flag


def test_as_a_program(saved, tmp_path):
    command = [sys.executable, "-m", "tflite_export.convert", f"--model={saved[1]}"]
    for name, status in (("m.tflite", 0), ("m.bin", 1)):
        done = subprocess.run(
            [*command, f"--output={tmp_path / name}"], cwd=ROOT, capture_output=True, text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
    assert json.dumps(read_contents(tmp_path / "m.tflite").to_dict())
