"""What docs/mobile.md shows runs as it stands there."""

import pathlib
import re
import shlex

import keras
import numpy as np
from exportable import images, network

import kerasbits as kb
from tflite_export import export
from tflite_export.contents.reading import read_contents
from tflite_export.convert import main

ROOT = pathlib.Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "mobile.md").read_text(encoding="utf-8")


def test_both_ways_without_training_give_the_same_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    network().save("m.keras")
    x = images(20)
    np.save("x.npy", x)
    (program,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    exec(program, {"kb": kb, "export": export, "model": keras.models.load_model("m.keras"), "x": x})
    by_program = pathlib.Path("m.tflite").read_bytes()
    assert {layer.container for layer in read_contents("m.tflite").layers} == {"INT8"}
    (command,) = re.findall(r"^    python -m tflite_export\.(convert (?:.*\\\n)?.*)$", GUIDE, re.M)
    assert main(shlex.split(command.replace("\\\n", ""))) == 0, capsys.readouterr().err
    assert pathlib.Path("m.tflite").read_bytes() == by_program


def test_ranges_of_pixels_become_part_of_every_file(tmp_path):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((4, 4, 3)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(2)]
    )
    x = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3)).astype(np.float32)
    q = kb.quantize_model(model, kb.Uniform(8), kb.Uniform(8))
    kb.calibrate(q, x)
    kb.freeze(q)
    for name, options in (
        ("m.kbits", {}),
        ("m.tflite", {}),
        ("stock.tflite", {"profile": "stock", "activations": "int8"}),
    ):
        result = export(q, tmp_path / name, sample=x, **options)
        assert result.verification is not None


def test_named_files_exist():
    for name in re.findall(r"\b((?:examples|benchmarks)/[\w/.]+\.py)\b", GUIDE):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\((\w+\.md)\)", GUIDE):
        assert (ROOT / "docs" / name).exists(), name
