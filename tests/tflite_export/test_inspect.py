"""The table and JSON of what is in a file."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from exportable import PAIRS, frozen, images, network

import kerasbits as kb
from tflite_export import export, flatbuffer, float_tflite
from tflite_export.blob.writer import section_sizes
from tflite_export.contents.reading import read_contents
from tflite_export.inspect import main
from tflite_export.tflite_writer import packed_blobs

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("inspect") / "m.tflite"
    export(frozen(network(), *PAIRS["bayesian_bits"]), path, verify=False)
    return path


@pytest.fixture(scope="module")
def float_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("inspect") / "float.tflite"
    path.write_bytes(float_tflite(network()))
    return path


def shown(capsys, *arguments):
    status = main(["inspect", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_bytes_of_the_parts_add_up(file):
    contents = read_contents(file)
    blobs = packed_blobs(flatbuffer.read(file.read_bytes()))
    assert contents.kind == "packed TFLite"
    assert contents.file_bytes == file.stat().st_size
    for layer in contents.layers:
        assert layer.total_bytes == len(blobs[layer.name])
        assert layer.code_bytes == section_sizes(blobs[layer.name])["codes"]
    total = contents.code_bytes + contents.parameter_bytes + contents.other_constants
    assert total + contents.overhead == contents.file_bytes
    assert 0 < contents.overhead < 8192


def test_json_says_what_the_layers_are(file, capsys):
    status, out, _ = shown(capsys, file, "--json")
    read = json.loads(out)
    first = read["layers"][0]
    assert status == 0
    assert [layer["name"] for layer in read["layers"]] == [
        "first", "dilated", "valid", "hidden", "last",
    ]  # fmt: skip
    assert first["op"] == "conv2d"
    assert first["shape"] == [3, 3, 3, 8]
    assert first["widths"] == {"0": 3, "8": 5}
    assert first["bits"] == 5.0
    assert first["container"] == "packed"
    assert first["encoding"] == "uniform"
    assert first["code_bytes"] == 8 * -(-5 * 27 // 64) * 8
    low, high = first["scales"]
    assert 0 < low <= high


def test_table_has_a_line_for_each_layer(file, capsys):
    status, out, _ = shown(capsys, file)
    assert status == 0
    title, *lines = out.splitlines()
    assert f"{file.stat().st_size:,} bytes" in title
    (line,) = [line for line in lines if " first " in line]
    for text in ("conv2d", "3x3x3x8", "5.00 (8, 3 dropped)", "uniform", "packed", "8 bit in ["):
        assert text in line, text


@pytest.mark.parametrize(
    ("pair", "encoding", "grid"),
    [
        ("apot4", "table of", "4 bit"),
        ("ls2", "2 planes", "2 bit of signs"),
        ("float_kernels", "float", "6"),
    ],
)
def test_every_encoding_has_a_name(tmp_path, pair, encoding, grid):
    export(frozen(network(), *PAIRS[pair]), tmp_path / "m.tflite", verify=False)
    layer = read_contents(tmp_path / "m.tflite").layers[0]
    assert layer.encoding.startswith(encoding)
    assert layer.grid.startswith(grid)


@pytest.mark.parametrize("pair", ["bitpruning", "float_kernels"])
def test_a_kbits_file(tmp_path, pair):
    q = frozen(network(), *PAIRS[pair])
    contents = [
        read_contents(export(q, tmp_path / name, verify=False).path)
        for name in ("m.kbits", "m.tflite")
    ]
    assert contents[0].kind == "kbits"
    assert contents[0].layers == contents[1].layers
    assert contents[0].code_bytes == contents[1].code_bytes
    assert 0 < contents[0].overhead < 8192


def test_kernels_of_several_parts_in_a_stock_file(tmp_path):
    """Two planes of unrelated scales are two constants, which the file adds."""
    q = frozen(network(), *PAIRS["ls2"])
    result = export(q, tmp_path / "m.tflite", profile="stock", verify=False)
    contents = read_contents(result.path)
    assert [layer.op for layer in contents.layers] == ["conv2d"] * 3 + ["dense"] * 2
    summed = [layer for layer in contents.layers if layer.encoding == "sum of 2"]
    assert summed
    assert {layer.container for layer in summed} == {"INT2"}
    assert {layer.bits for layer in summed} == {4.0}
    assert contents.code_bytes == result.weight_bytes


@pytest.mark.parametrize("activations", ["float", "int8"])
@pytest.mark.parametrize("pair", ["uniform4", "ls2", "float_kernels"])
def test_layers_of_a_stock_file_have_their_names(tmp_path, pair, activations):
    q = frozen(network(), *PAIRS[pair])
    options = {"profile": "stock", "activations": activations}
    result = export(q, tmp_path / "m.tflite", verify=False, **options)
    names = [layer.name for layer in read_contents(result.path).layers]
    assert names == ["first", "dilated", "valid", "hidden", "last"]


def test_tables_of_a_stock_file_have_their_names(tmp_path):
    ids = keras.Input((5,), dtype="int32")
    words = keras.layers.Embedding(40, 8, name="words")(ids)
    model = keras.Model(ids, keras.layers.Embedding(30, 8, name="more")(ids) + words)
    for bits in (4, 8):
        q = kb.quantize_model(model, kb.Uniform(bits))
        kb.freeze(q)
        result = export(q, tmp_path / "m.tflite", profile="stock")
        names = {layer.name for layer in read_contents(result.path).layers}
        assert names == {"words", "more"}


def test_a_float_file_of_the_stock_converter(float_file, capsys):
    contents = read_contents(float_file)
    assert contents.kind == "TFLite"
    kernels = [w for la in network().layers for w in la.get_weights() if w.ndim > 1]
    assert contents.code_bytes == sum(w.nbytes for w in kernels)
    assert {layer.container for layer in contents.layers} == {"FLOAT32"}
    assert {layer.bits for layer in contents.layers} == {32.0}
    assert shown(capsys, float_file)[0] == 0


def test_an_int8_file_of_the_stock_converter(tmp_path):
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(network())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([x[None]] for x in images())
    (tmp_path / "int8.tflite").write_bytes(converter.convert())
    contents = read_contents(tmp_path / "int8.tflite")
    assert [layer.op for layer in contents.layers] == ["conv2d"] * 3 + ["dense"] * 2
    assert {layer.container for layer in contents.layers} == {"INT8"}
    assert contents.layers[0].widths == {8: 8}  # a scale for each of 8 channels
    assert contents.layers[0].grid.startswith("int8, step ")


def test_a_shared_layer_is_one_line(tmp_path):
    inputs = keras.Input((6,))
    shared = keras.layers.Dense(6, name="shared")
    model = keras.Model(inputs, shared(shared(inputs)))
    q = frozen(model, kb.Uniform(4), kb.Uniform(8), np.ones((4, 6), np.float32))
    export(q, tmp_path / "m.tflite")
    (layer,) = read_contents(tmp_path / "m.tflite").layers
    assert layer.uses == 2


def damaged(data, how):
    if how == "cut short":
        return data[: len(data) // 2]
    if how == "no file of ours":
        return b"PK\x03\x04" + bytes(100)
    if how == "empty":
        return b""
    if how == "only the identifier":
        return b"\0\0\0\0KBMF" + bytes(8)
    middle = data.index(b"KBIT") + 200  # inside a blob
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "how", ["cut short", "no file of ours", "empty", "only the identifier", "a flipped bit"]
)
def test_bad_files_are_one_clear_line(file, tmp_path, capsys, how):
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(damaged(file.read_bytes(), how))
    status, out, err = shown(capsys, bad)
    assert status == 1
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"inspect: file '{bad}': expected")


def test_missing_file_and_wrong_arguments(tmp_path, capsys):
    status, _, err = shown(capsys, tmp_path / "none.tflite")
    assert (status, err) == (
        1,
        f"inspect: file '{tmp_path}/none.tflite': No such file or directory\n",
    )
    status, _, err = shown(capsys)
    assert (status, err) == (2, "inspect: expected one file, got 0; see --help\n")
    status, _, err = shown(capsys, "--jsn")
    assert status == 2
    assert "Unknown command line flag 'jsn'" in err


def test_help_says_what_it_does(capsys):
    status, out, _ = shown(capsys, "--help")
    assert status == 0
    assert out.startswith("python -m tflite_export.inspect FILE [--json]\n")
    assert "--json\n      Print JSON instead of a table." in out


def test_as_a_program(file, tmp_path):
    (tmp_path / "bad").write_bytes(b"hello, world")
    for path, status in ((file, 0), (tmp_path / "bad", 1)):
        done = subprocess.run(
            [sys.executable, "-m", "tflite_export.inspect", str(path), "--json"],
            cwd=ROOT, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        if status == 0:
            assert json.loads(done.stdout)["kind"] == "packed TFLite"
