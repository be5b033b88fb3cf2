"""Timing files: what runs, what it is called, and what is refused. How long it takes is no test."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from exportable import PAIRS, frozen

import kerasbits as kb
from tflite_export import Interpreter, export, float_tflite
from tflite_export.benchmark import as_ratio, main
from tflite_export.interpreter import open_runner
from tflite_export.native import NativeOp
from tflite_export.tflite_writer import packed_blobs
from tflite_export.timing.bursts import Spread
from tflite_export.timing.files import FileTimes
from tflite_export.timing.parts_of_kbits import kbits_parts
from tflite_export.timing.parts_of_tflite import tflite_parts

ROOT = pathlib.Path(__file__).parents[2]
LAYERS = ("conv", "depthwise", "logits")


def chain():
    """Layers that each read what the one before wrote."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, padding="same", activation="relu", name="conv"),
            layers.MaxPooling2D(name="pool"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Flatten(name="flatten"),
            layers.Dense(5, name="logits"),
        ]
    )


def samples(seed=0):
    return np.random.default_rng(seed).normal(size=(1, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same network in all kinds of files."""
    folder = tmp_path_factory.mktemp("benchmark")
    model = chain()
    q = kb.quantize_model(model, kb.Uniform(4), kb.Uniform(8))
    kb.calibrate(q, samples(1))
    kb.freeze(q)
    paths = {
        name: folder / name for name in ("m.tflite", "m.kbits", "stock.tflite", "float.tflite")
    }
    export(q, paths["m.tflite"], verify=False)
    export(q, paths["m.kbits"], verify=False)
    options = {"profile": "stock", "activations": "int8", "sample": samples(1)}
    export(q, paths["stock.tflite"], verify=False, **options)
    paths["float.tflite"].write_bytes(float_tflite(model))
    return paths


def shown(capsys, *arguments):
    status = main(["benchmark", "--runs=1", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def parts_of(path):
    data = path.read_bytes()
    return kbits_parts(data) if path.suffix == ".kbits" else tflite_parts(data)


@pytest.mark.parametrize("name", ["m.tflite", "m.kbits", "stock.tflite"])
def test_the_parts_one_after_the_other_are_the_whole(files, name):
    x = y = samples()
    for part in parts_of(files[name]):
        runner = open_runner(part.data)
        (read,) = runner.inputs
        assert part.input == y.shape
        (y,) = runner.run([y.astype(read[2])])
        assert y.shape == part.output
    np.testing.assert_array_equal(y, Interpreter(files[name]).predict(x))


@pytest.mark.parametrize("name", ["m.tflite", "m.kbits"])
def test_multiplications(files, name):
    macs = {part.name: part.macs for part in parts_of(files[name])}
    assert [macs[layer] for layer in LAYERS] == [64 * 4 * 27, 4 * 4 * 9, 16 * 5]
    assert sum(macs.values()) == sum(macs[layer] for layer in LAYERS)


def test_multiplications_of_stock_operators(files):
    found = [part.macs for part in parts_of(files["float.tflite"]) if part.macs]
    assert found == [64 * 4 * 27, 4 * 4 * 9, 16 * 5]


def test_constants_are_prepared_with_their_layer(tmp_path):
    """Kernels of two planes are added by operators that are no work of a run."""
    q = frozen(chain(), *PAIRS["ls2"], data=samples(1), rules={"^conv$": kb.Rule(*PAIRS["ls2"])})
    result = export(q, tmp_path / "m.tflite", profile="stock", verify=False)
    parts = tflite_parts(result.path.read_bytes())
    layers = [part for part in parts if part.macs]
    assert [part.op for part in layers] == ["conv_2d", "depthwise_conv_2d", "fully_connected"]
    for part in layers:
        assert len(open_runner(part.data).inputs) == 1


@pytest.mark.parametrize("name", ["m.tflite", "m.kbits", "stock.tflite", "float.tflite"])
def test_a_run(files, capsys, name):
    status, out, _ = shown(capsys, files[name])
    assert status == 0
    title, *lines = out.splitlines()
    assert title.startswith(str(files[name]))
    assert "1 thread, " in title
    assert any("(together)" in line for line in lines)
    for layer in LAYERS if name.startswith("m.") else ():
        assert sum(f" {layer} " in line for line in lines) == 1


def test_against_another_file_and_json(files, tmp_path, capsys):
    target = tmp_path / "times.json"
    ours, other = files["m.tflite"], files["float.tflite"]
    status, out, _ = shown(capsys, ours, f"--against={other}", f"--json={target}", "--nolayers")
    assert status == 0
    *titles, last = out.splitlines()
    assert [line.partition(":")[0] for line in titles] == [str(ours), str(other)]
    assert str(ours) in last
    assert str(other) in last
    read = json.loads(target.read_text())
    assert [file["path"] for file in read["files"]] == [str(ours), str(other)]
    assert read["files"][0]["layers"] == []
    assert read["speed_ratio"]["median"] > 0


def test_faster_and_slower_in_words():
    whole = Spread(1.0, 1.0, 1.0, 5, 0)
    a, b = (FileTimes(name, "kbits", 1, whole, ()) for name in ("a", "b"))
    assert (
        as_ratio(a, b, Spread(1.5, 2.0, 2.5, 5, 0)) == "a is 2.00 times as fast as b (1.50 to 2.50)"
    )
    slower = as_ratio(a, b, Spread(0.25, 0.5, 0.8, 5, 0))
    assert slower == "a takes 2.00 times as long as b (1.25 to 4.00)"


def test_repeated_runs_are_runs(files):
    """What is timed computes, and reads its input anew each time."""
    from tflite_export.flatbuffer import read

    blob = packed_blobs(read(files["m.tflite"].read_bytes()))["conv"]
    x = samples()
    with NativeOp(blob) as op:
        call = op.repeated(x)
        _, (given, found) = call.kept
        for seed in (0, 5):
            given[:] = samples(seed)
            call()
            np.testing.assert_array_equal(found, op.run(samples(seed)))


def test_several_inputs_and_ids(tmp_path, capsys):
    ids, x = keras.Input((5,), dtype="int32"), keras.Input((8,))
    words = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(3, 8, name="words")(ids))
    q = kb.quantize_model(keras.Model([ids, x], words + x), kb.Uniform(4))
    kb.freeze(q)
    for name in ("m.tflite", "m.kbits"):
        export(q, tmp_path / name, verify=False)
        status, out, _ = shown(capsys, tmp_path / name)
        assert status == 0
        assert "packed embedding" in out


@pytest.mark.parametrize("how", ["missing", "no file of ours", "cut short", "a flipped bit"])
def test_bad_files_are_one_clear_line(files, tmp_path, capsys, how):
    data, bad = files["m.tflite"].read_bytes(), tmp_path / "bad.tflite"
    middle = data.index(b"KBIT") + 200
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    contents = {"no file of ours": b"PK\x03\x04" + bytes(99), "cut short": data[: len(data) // 2]}
    if how != "missing":
        bad.write_bytes(contents.get(how, flipped))
    for arguments in ([bad], [files["m.tflite"], f"--against={bad}"]):
        status, out, err = shown(capsys, *arguments)
        assert (status, out) == (1, "")
        assert len(err.splitlines()) == 1
        assert err.startswith("benchmark: ")
        assert str(bad) in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected one file, got 0"),
        (["a", "b"], "expected one file, got 2"),
        (["a", "--runs=0"], "runs"),
        (["a", "--threads=none"], "threads"),
    ],
)
def test_wrong_arguments(capsys, arguments, said):
    status = main(["benchmark", *arguments])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_as_a_program(files):
    done = subprocess.run(
        [sys.executable, "-m", "tflite_export.benchmark", str(files["m.kbits"]), "--runs=1"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "packed depthwise_conv2d" in done.stdout
