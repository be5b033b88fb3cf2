"""The result line: strict JSON with what was run, found and written."""

import hashlib
import json
import pathlib

import keras
import numpy as np
import pytest
from example_modules import example

import kerasbits as kb

results = example("training.results")
settings = example("training.settings")

SETTINGS = settings.Settings("runs/1", method="bsq", method_options={"bits": 3}, seed=7)


def parsed(*arguments, **named):
    line = results.json_line(*arguments, **named)
    assert "\n" not in line

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(line, parse_constant=refuse)


def test_what_was_run():
    found = parsed(SETTINGS, program="train_tfmot", steps=np.int64(12), seconds=3.14159)
    expected = {
        "program": "train_tfmot", "mode": "train_and_eval", "method": "bsq",
        "method_options": {"bits": 3}, "network": "lenet5", "dataset": "fashion_mnist", "seed": 7,
        "distribute": "none", "accuracy": {}, "weights_sha256": None, "steps": 12, "seconds": 3.1,
        "model_dir": "runs/1", "files": {},
    }  # fmt: skip
    versions = found.pop("versions")
    assert found == expected
    assert versions["kerasbits"] == kb.__version__
    assert versions["keras"] == keras.__version__
    assert versions["numpy"] == np.__version__
    assert versions["backend"] == keras.backend.backend()
    assert "no-such-package" not in versions


def test_what_was_found():
    layers = [keras.layers.Dense(2, name="a"), keras.layers.Dense(5, name="b")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    rules = {"b": kb.Rule(kb.Uniform(2))}
    report = kb.report(kb.quantize_model(model, kb.Uniform(4), kb.Uniform(8), rules))
    accuracy = {"float": np.float32(0.5), "quantized": float("nan"), "exported": None}
    found = parsed(SETTINGS, accuracy=accuracy, report=report)
    assert found["accuracy"] == {"float": 0.5, "quantized": None, "exported": None}
    assert found["bits"] == {"a": 4.0, "b": 2.0}
    assert found["input_bits"] == {"a": 8.0, "b": 32.0}
    assert found["average_bits"] == pytest.approx((8 * 4 + 10 * 2) / 18)
    assert found["float_weight_bytes"] == 4 * 18
    assert found["weight_bytes"] == report.weight_bytes
    assert found["bops"] == report.bops == 8 * 4 * 8 + 10 * 2 * 32


def test_what_was_written(tmp_path):
    (tmp_path / "m.kbits").write_bytes(b"abc")
    files = {"export": tmp_path / "m.kbits", "model": str(tmp_path / "none.keras")}
    found = parsed(SETTINGS, files=files, weights_sha256="aa")
    digest = hashlib.sha256(b"abc").hexdigest()
    assert found["weights_sha256"] == "aa"
    assert found["files"] == {
        "export": {"path": str(tmp_path / "m.kbits"), "bytes": 3, "sha256": digest},
        "model": {"path": str(tmp_path / "none.keras"), "bytes": None, "sha256": None},
    }


def test_versions_under_another_name(monkeypatch):
    """The CPU build of TensorFlow has a package of its own."""
    known = {"tensorflow-cpu": "2.99", "numpy": "9"}

    def version(name):
        if name not in known:
            raise results.importlib.metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(results.importlib.metadata, "version", version)
    found = results.versions()
    assert {k: v for k, v in found.items() if k in results.PACKAGES} == {
        "tensorflow": "2.99",
        "numpy": "9",
    }


def test_names_that_are_not_ascii_survive():
    found = parsed(settings.Settings("läufe/1"), files={"model": pathlib.Path("läufe/m")})
    assert found["model_dir"] == "läufe/1"
    assert found["files"]["model"]["path"] == "läufe/m"
