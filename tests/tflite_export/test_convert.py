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


@pytest.fixture(scope="module")
def floating(tmp_path_factory):
    """A float model as it is loaded, its .keras file, and a file of inputs."""
    path = tmp_path_factory.mktemp("convert") / "float.keras"
    network().save(path)
    np.save(path.with_name("x.npy"), images(40))
    return keras.models.load_model(path), path, path.with_name("x.npy")


@pytest.mark.parametrize(
    ("bits", "flags", "options"),
    [
        ((8, 8), {}, {}),
        ((3, 5), {"bits": 3, "input_bits": 5}, {}),
        ((8, 8), *[{"profile": "stock", "activations": "int8"}] * 2),
    ],
)
def test_a_float_model_is_quantized_without_training(
    floating, tmp_path, capsys, bits, flags, options
):
    model, path, x = floating
    output = tmp_path / "m.tflite"
    status, out, err = convert(capsys, model=path, output=output, calibrate=x, **flags)
    assert (status, err) == (0, "")
    assert "verified to" in out
    q = kb.quantize_model(model, kb.Uniform(bits[0], granularity="channel"), kb.Uniform(bits[1]))
    kb.calibrate(q, images(40))
    kb.freeze(q)
    again = tmp_path / "again.tflite"
    export(q, again, sample=images(40), verify=False, **options)
    assert output.read_bytes() == again.read_bytes()


def test_the_sample_goes_before_the_data_of_the_ranges(floating, tmp_path, capsys):
    """Ranges of tensors between int8 layers come from it."""
    _, path, x = floating
    np.save(tmp_path / "far.npy", 9 * images(4))
    flags = {"model": path, "calibrate": x, "profile": "stock", "activations": "int8"}
    for name, more in (("a.tflite", {}), ("b.tflite", {"sample": tmp_path / "far.npy"})):
        assert convert(capsys, **flags, **more, output=tmp_path / name)[0] == 0
    assert (tmp_path / "a.tflite").read_bytes() != (tmp_path / "b.tflite").read_bytes()


@pytest.mark.filterwarnings("error:The structure of `inputs`")
@pytest.mark.parametrize("as_dictionary", [False, True])
def test_ranges_of_several_inputs_go_by_name(tmp_path, capsys, as_dictionary):
    """The larger values of `right` reach the input that they are of."""
    inputs = {name: keras.Input((3,), name=name) for name in ("left", "right")}
    parts = [keras.layers.Dense(2, name=f"of_{name}")(x) for name, x in inputs.items()]
    given = inputs if as_dictionary else list(inputs.values())
    keras.Model(given, keras.layers.Add()(parts)).save(tmp_path / "m.keras")
    data = {"right": 100 * np.ones((4, 3), np.float32), "left": np.ones((4, 3), np.float32)}
    np.savez(tmp_path / "x.npz", **data)
    flags = {"model": tmp_path / "m.keras", "output": tmp_path / "m.tflite"}
    status, _, err = convert(capsys, **flags, calibrate=tmp_path / "x.npz")
    assert (status, err) == (0, "")
    layers = {layer.name: layer for layer in read_contents(tmp_path / "m.tflite").layers}
    assert "100" in layers["of_right"].grid
    assert "100" not in layers["of_left"].grid


def test_a_float_model_is_told_what_to_do(floating, tmp_path, capsys):
    status, _, err = convert(capsys, model=floating[1], output=tmp_path / "m.tflite")
    assert status == 1
    assert err.count("\n") == 1
    assert err.startswith("convert: model 'network': expected at least one quantized layer")
    assert err.endswith("see kerasbits.quantize_model, or use --calibrate=FILE\n")


def test_errors_of_calibration_are_one_clear_line(saved, floating, tmp_path, capsys):
    _, path, x = floating
    np.save(tmp_path / "narrow.npy", np.ones((2, 3), np.float32))
    np.save(tmp_path / "none.npy", np.ones((0, *SHAPE), np.float32))
    np.save(tmp_path / "nan.npy", np.full((1, *SHAPE), np.nan, np.float32))
    bare = keras.Sequential([keras.Input((3,)), keras.layers.ReLU()], name="bare")
    bare.save(tmp_path / "bare.keras")
    good = {"model": path, "calibrate": x}
    cases = [
        ({"model": path, "bits": 4}, 2, "--bits: expected --calibrate=FILE with it, got none"),
        ({"model": path, "input_bits": 8}, 2, "--input_bits: expected --calibrate=FILE"),
        ({**good, "bits": 1}, 2, "2, 16"),
        ({**good, "input_bits": 17}, 2, "2, 16"),
        ({**good, "bits": "few"}, 2, "invalid literal"),
        ({**good, "calibrate": "none.npy"}, 1, "calibrate 'none.npy': expected a .npy or .npz"),
        ({**good, "calibrate": tmp_path / "narrow.npy"}, 1, "narrow.npy', input '"),
        ({**good, "calibrate": tmp_path / "none.npy"}, 1, "expected shape (samples, 9, 9, 3)"),
        ({**good, "calibrate": tmp_path / "nan.npy"}, 1, "nan.npy': expected finite"),
        ({**good, "model": saved[1]}, 1, "expected a float model, got one with quantized layers"),
        ({"model": tmp_path / "bare.keras", "calibrate": tmp_path / "narrow.npy"}, 1,
         "expected at least one"),
    ]  # fmt: skip
    for flags, expected, text in cases:
        status, _, err = convert(capsys, output=tmp_path / "m.tflite", **flags)
        assert status == expected, (flags, err)
        assert err.startswith("convert: "), flags
        assert err.count("\n") == 1, flags
        assert text in err, (flags, err)
    assert not (tmp_path / "m.tflite").exists()


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
    assert "--calibrate. Default: 8." in out
    for flag in ("activations=float|int8", "bits=NUMBER", "calibrate=FILE", "freeze",
                 "input_bits=NUMBER", "model=FILE", "narrowest=2|4|8", "output=FILE",
                 "profile=packed|stock", "sample=FILE", "[no]verify"):  # fmt: skip
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
