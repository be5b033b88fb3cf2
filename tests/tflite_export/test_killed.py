"""An export that is killed leaves the older file whole."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest
from exportable import PAIRS, frozen, network

from tflite_export import export
from tflite_export.unfinished import MARK

ROOT = pathlib.Path(__file__).parents[2]

PROGRAM = """
import os, signal, sys, keras
import tflite_export.exporter as exporter
from tflite_export.unfinished import UnfinishedFile

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

def half(self, data):
    self.path.write_bytes(data[: len(data) // 2])
    die()

if sys.argv[3] == "writing":
    UnfinishedFile.write = half
if sys.argv[3] == "verification":
    exporter.compare = die
if sys.argv[3] == "renaming":
    UnfinishedFile.finish = die
exporter.export(keras.models.load_model(sys.argv[1]), sys.argv[2])
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two frozen models, the second one in a .keras file."""
    first, second = (frozen(network(), *PAIRS[pair]) for pair in ("uniform4", "uniform5"))
    path = tmp_path_factory.mktemp("killed") / "m.keras"
    second.save(path)
    return first, second, path


@pytest.mark.parametrize("moment", ["writing", "verification", "renaming"])
def test_killed_export_leaves_the_older_file(saved, tmp_path, moment):
    first, second, model = saved
    path = tmp_path / "m.tflite"
    export(first, path, verify=False)
    before = path.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(model), str(path), moment],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert path.read_bytes() == before
    (stray,) = (p for p in tmp_path.iterdir() if p != path)
    assert stray.name.startswith(f".m.{MARK}-")
    assert stray.suffix == ".tflite"
    export(second, path)  # what stayed behind does no harm
    assert path.read_bytes() != before
    assert {p.name for p in tmp_path.iterdir()} == {"m.tflite", stray.name}
