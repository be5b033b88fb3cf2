"""Which of C and NumPy runs a layer, in processes of their own."""

import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from kernels.layers_for_tests import inputs, random_layer

from tflite_export.blob.writer import write_blob
from tflite_export.native import NativeOp, open_op

ROOT = pathlib.Path(__file__).parents[2]

PROGRAM = """
import sys, warnings
import numpy as np
from tflite_export import native
blob, x = open(sys.argv[1], "rb").read(), np.load(sys.argv[2])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(3):
        with native.open_op(blob) as op:
            y = op.run(x)
np.save(sys.argv[3], y)
print(type(op).__name__, len(caught), *(f"{w.category.__name__}: {w.message}" for w in caught))
"""


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """A copy of the packages without the library, as an installation without a compiler has it."""
    folder = tmp_path_factory.mktemp("packages")
    for package in ("kerasbits", "tflite_export"):
        leave = shutil.ignore_patterns("*.so", "__pycache__", "build", "*.c", "*.h")
        shutil.copytree(ROOT / package, folder / package, ignore=leave)
    return folder


@pytest.fixture
def case(tmp_path):
    """Paths of a blob and an input, and the output that the C library gives."""
    rng = np.random.default_rng(0)
    layer = random_layer(rng, "conv2d", (3, 3, 4, 5), "uniform", "uniform4", padding="same")
    x = inputs(rng, (1, 6, 5, 4))
    (tmp_path / "blob").write_bytes(write_blob(layer))
    np.save(tmp_path / "x.npy", x)
    return tmp_path / "blob", tmp_path / "x.npy", NativeOp(write_blob(layer)).run(x)


def run(folder, case, tmp_path):
    blob, x, expected = case
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(blob), str(x), str(tmp_path / "y.npy")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=2**-23, atol=1e-12)
    return done.stdout


def test_without_the_library_numpy_runs_after_one_warning(copies, case, tmp_path):
    said = run(copies, case, tmp_path)
    assert said.startswith("NumpyOp 1 RuntimeWarning: ")
    for word in ("libkerasbits.so", "setup.py build_ext", "NumPy"):
        assert word in said


def test_a_library_that_does_not_load_is_none(copies, case, tmp_path):
    broken = copies / "tflite_export" / "libkerasbits.so"
    broken.write_bytes(b"\x7fELF, but no more")
    try:
        said = run(copies, case, tmp_path)
    finally:
        broken.unlink()
    assert said.startswith("NumpyOp 1 RuntimeWarning: expected a C library that loads")
    assert "setup.py build_ext" in said


def test_with_the_library_c_runs(case):
    with open_op(case[0].read_bytes()) as op:
        assert type(op) is NativeOp
