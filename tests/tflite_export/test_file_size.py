"""What a packed file costs beside its numbers, and that the same model gives the same bytes."""

import hashlib
import os
import pathlib
import subprocess
import sys

import keras
import pytest
from exportable import PAIRS, frozen, images, network

import kerasbits as kb
from examples.networks import resnet20
from tflite_export.blob.writer import section_sizes
from tflite_export.collect import collect
from tflite_export.converter import convert
from tflite_export.tflite_writer import write_packed

ROOT = pathlib.Path(__file__).parents[2]


def test_resnet20_costs_8_kilobytes_beside_its_numbers():
    model = resnet20()
    q = frozen(model, kb.Uniform(4), kb.Uniform(8), images(2, model.input_shape[1:]))
    written = write_packed(q, collect(q))
    numbers = 0
    for blob in written.blobs.values():
        sizes = section_sizes(blob)
        numbers += sum(sizes.values()) - sizes["header"] - sizes["alignment"]
    assert len(written.data) - numbers < 8192
    assert numbers < 0.14 * 4 * model.count_params()


@pytest.mark.parametrize(
    ("shape", "layers"),
    [
        ((2,), [keras.layers.Dense(2)]),
        ((2,), [keras.layers.Dense(2, activation="relu"), keras.layers.Dense(1)]),
        ((4, 4, 1), [keras.layers.Conv2D(1, 2)]),
        ((6, 2), [keras.layers.Conv1D(2, 2)]),
    ],
    ids=["dense", "two", "conv", "one_axis"],
)
def test_tiny_files_are_no_larger_than_float_ones(shape, layers):
    model = keras.Sequential([keras.Input(shape), *layers])
    q = frozen(model, kb.Uniform(4), kb.Uniform(8), images(4, shape))
    assert len(write_packed(q, collect(q)).data) <= len(convert(model))


def digest():
    keras.backend.clear_session()  # inputs without a name are numbered
    q = frozen(network(), *PAIRS["uniform4"])
    return hashlib.sha256(write_packed(q, collect(q)).data).hexdigest()


def test_another_process_gives_the_same_bytes():
    first = digest()
    assert digest() == first
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    code = (
        "import runpy; m = runpy.run_path('tests/tflite_export/test_file_size.py');"
        "print('digest', m['digest']())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.split()[-1] == first
