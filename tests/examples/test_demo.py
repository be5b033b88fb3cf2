"""The demo on a handful of images, and what it says when there are none."""

import gzip
import os
import pathlib
import struct
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]


def write_idx(path, array):
    head = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Ten kinds of stripes with noise, easy to tell apart, in Fashion-MNIST's files."""
    folder = tmp_path_factory.mktemp("idx")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:28, :28]
    for split, count in (("train", 1200), ("t10k", 200)):
        labels = rng.integers(0, 10, count)
        angle = labels[:, None, None] * np.pi / 10
        stripes = np.sin(rows * np.cos(angle) + columns * np.sin(angle)) > 0
        pixels = 160 * stripes + rng.integers(0, 90, (count, 28, 28))
        write_idx(folder / f"{split}-images-idx3-ubyte.gz", pixels)
        write_idx(folder / f"{split}-labels-idx1-ubyte.gz", labels)
    return folder


def demo(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )


def test_demo_runs_to_the_result(images, tmp_path):
    short = ["--float_epochs=4", "--learn_epochs=1", "--tune_epochs=1", "--batch_size=32"]
    done = demo("--method=bitpruning", f"--data_dir={images}", f"--output={tmp_path}", *short)
    assert done.returncode == 0, done.stderr[-2000:]
    float_line = next(text for text in done.stdout.splitlines() if text.startswith("float: "))
    assert float(float_line.split()[1]) > 60
    lines = [text for text in done.stdout.splitlines() if text.startswith("RESULT bitpruning, ")]
    files = ("bitpruning.tflite", "bitpruning.kbits", "bitpruning_stock.tflite",
             "bitpruning_int8.tflite")  # fmt: skip
    for line, file in zip(lines, files, strict=True):
        assert float(line.split(": ")[1].split(" %")[0]) > 60
        assert f" {(tmp_path / file).stat().st_size:,} B" in line
    assert (tmp_path / "bitpruning.keras").exists()


def test_no_data_is_one_clear_line(tmp_path):
    done = demo(f"--data_dir={tmp_path}")
    assert done.returncode != 0
    assert "dataset-fashion-mnist" in done.stderr
    assert "Traceback" not in done.stderr


def test_broken_data_is_one_clear_line(images, tmp_path):
    for file in images.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"hello"))
    done = demo(f"--data_dir={tmp_path}")
    assert done.returncode != 0
    assert "expected an IDX file" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_method_lists_the_known(images):
    done = demo("--method=magic", f"--data_dir={images}")
    assert done.returncode != 0
    assert "bitpruning" in done.stdout + done.stderr
