"""What the README shows must run as it stands there."""

import pathlib
import re

import keras
import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def snippets():
    return re.findall(r"```python\n(.*?)```", README, re.S)


def test_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (example,) = snippets()
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    model, logits = names["q"], names["logits"]
    np.testing.assert_allclose(logits, model.predict(names["x"][:4], verbose=0), atol=0.05)
    assert names["result"].file_bytes < 4 * model.count_params() / 3
    assert "bits on average" in capsys.readouterr().out


def test_example_is_about_fifteen_lines():
    (example,) = snippets()
    code = [
        line for line in example.splitlines() if line and not line.startswith(("import", "from"))
    ]
    assert len(code) <= 15


def test_named_files_and_links_exist():
    for name in re.findall(r"`((?:docs|tflite_export|examples|tests)/[\w/.]+)`", README):
        assert (ROOT / name).exists(), name
    for target in re.findall(r"\]\((?!http)([\w./]+)", README):
        assert (ROOT / target).exists(), target


def test_documented_names_exist():
    import kerasbits as kb

    for dotted in re.findall(r"(?<![\w/])kb\.([\w.]+)", README):
        value = kb
        for part in dotted.rstrip(".").split("."):
            value = getattr(value, part)
    assert isinstance(kb.layers.QuantDense(1), keras.layers.Dense)
