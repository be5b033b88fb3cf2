"""What the README shows must run as it stands there."""

import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def snippets():
    """The example of Keras 3, and that of tfmot, which goes on with its data."""
    keras_3, tfmot = re.findall(r"```python\n(.*?)```", README, re.S)
    return keras_3, tfmot


def test_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example, _ = snippets()
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    model, logits = names["q"], names["logits"]
    np.testing.assert_allclose(logits, model.predict(names["x"][:4], verbose=0), atol=0.05)
    assert names["result"].file_bytes < 4 * model.count_params() / 3
    assert "bits on average" in capsys.readouterr().out


def test_tfmot_example_runs(tmp_path):
    """In a process of its own, because tfmot changes what `tf.keras` means."""
    pytest.importorskip("tf_keras")
    keras_3, tfmot = snippets()
    data = keras_3.partition("model = ")[0]
    witness = """
from tflite_export import Interpreter
found = Interpreter("tfmot.tflite").predict(x[:16])
np.testing.assert_allclose(found, q.predict(x[:16], verbose=0), atol=0.05)
assert {type(layer).__name__ for layer in q.layers} == {"KerasbitsQuantizeWrapper", "Flatten"}
assert all(row.bits == round(row.bits) < 9 for row in kb.report(q).rows)
"""
    done = subprocess.run(
        [sys.executable, "-c", data + tfmot + witness],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_example_is_about_fifteen_lines():
    example, _ = snippets()
    code = [
        line for line in example.splitlines() if line and not line.startswith(("import", "from"))
    ]
    assert len(code) <= 15


def test_named_files_and_links_exist():
    for name in re.findall(r"`((?:docs|tflite_export|examples|tests)/[\w/.]+)`", README):
        assert (ROOT / name).exists(), name
    for target in re.findall(r"\]\((?!http)([\w./-]+)", README):
        assert (ROOT / target).exists(), target


def test_documented_names_exist():
    import kerasbits as kb

    for dotted in re.findall(r"(?<![\w/])kb\.([\w.]+)", README):
        value = kb
        for part in dotted.rstrip(".").split("."):
            value = getattr(value, part)
    assert isinstance(kb.layers.QuantDense(1), keras.layers.Dense)
