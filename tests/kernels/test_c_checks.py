"""The C tests under sanitizers, and the two readers of blobs against each other."""

import dataclasses
import itertools
import pathlib
import re
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from kernels.layers_for_tests import ENCODINGS, GRIDS, random_layer, random_weight

from kerasbits.packed import FloatGrid
from tflite_export import native
from tflite_export.blob import header as blob_header
from tflite_export.blob.writer import PackedLayer, read_blob, write_blob
from tflite_export.native import NativeOp

KERNELS = pathlib.Path(native.__file__).parent / "kernels"
SHAPES = {"dense": (9, 4), "conv2d": (2, 3, 3, 4), "depthwise_conv2d": (3, 3, 3, 1)}
EMBEDDING = (7, 5)


def kernels_of(*families):
    """Names of the products of these instruction sets, from the list that C reads."""
    listed = (KERNELS / "kernels.inc").read_text()
    found = [name for f in families for name in re.findall(rf"\nKB_GEMM\((\w+_{f}),", listed)]
    assert len(found) >= 4 * len(families)
    return found


def blobs():
    """One blob for each encoding and each grid, over all kinds of layers."""
    rng = np.random.default_rng(0)
    kinds = itertools.cycle(SHAPES.items())
    for i in range(max(len(ENCODINGS), len(GRIDS))):
        op, shape = next(kinds)
        encoding, grid = ENCODINGS[i % len(ENCODINGS)], GRIDS[i % len(GRIDS)]
        window = {} if op == "dense" else {"padding": ("same", "valid", ((1, 2), (0, 1)))[i % 3]}
        if window.get("padding", "same") != "same":
            window["input_dilations"] = (1 + i % 3, 2)
        yield write_blob(random_layer(rng, op, shape, encoding, grid, **window))
    for i, encoding in enumerate(("uniform_mixed", "table", "planes", "floats")):
        weight = random_weight(rng, encoding, EMBEDDING, i % 2)
        yield write_blob(PackedLayer("embedding", weight, FloatGrid()))


def layers_of_every_form():
    """Blobs of layers with windows, strides and channels that fill units, or do not."""
    rng = np.random.default_rng(1)
    kernels = itertools.cycle([(3, 3, 8, 5), (3, 2, 5, 7), (3, 3, 80, 4), (1, 1, 70, 9)])
    encodings = itertools.cycle(ENCODINGS)
    for i, grid in enumerate(GRIDS * 3):
        window = {"padding": "same", "strides": (1 + i % 2, 1 + i % 3 // 2)}
        encoding = "one_bit" if i % 3 == 0 else next(encodings)
        yield write_blob(random_layer(rng, "conv2d", next(kernels), encoding, grid, **window))
        if i % 3 == 0:
            yield write_blob(random_layer(rng, "depthwise_conv2d", (3, 3, 6, 1), "table", grid))
            yield write_blob(random_layer(rng, "dense", (70, 300), next(encodings), grid))


def written(blobs, folder):
    """Paths of files of blobs."""
    folder.mkdir()
    paths = [folder / f"{i}.blob" for i, _ in enumerate(blobs)]
    for path, blob in zip(paths, blobs, strict=True):
        path.write_bytes(blob)
    return paths


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_kernels_and_blobs_under_sanitizers(tmp_path):
    command = ["make", "-s", "-j2", "-C", str(KERNELS), "check", f"BUILD={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.findall(r"^(\w+) +ok$", done.stdout, re.MULTILINE)
    better = {"avx2": ["avx2"], "avx512": ["avx2", "avx512"]}.get(native.isa(), [])
    assert {"blobs", "scratch", "kb_finish_scalar", *kernels_of("scalar", *better)} <= set(passed)
    some = written(list(blobs())[::3], tmp_path / "some")
    forms = written(list(layers_of_every_form()), tmp_path / "forms")
    for program, paths in (("test_blob", some), ("test_scratch", forms)):
        done = subprocess.run([tmp_path / program, *paths], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("clang"), reason="needs clang")
def test_kernels_compiled_by_clang(tmp_path):
    # Where a loop of a kernel cannot be unrolled, clang warns, and warnings are errors.
    command = ["make", "-s", "-j2", "-C", str(KERNELS), "CC=clang", "CHECKED=-O3"]
    command += [f"BUILD={tmp_path}", f"{tmp_path}/test_gemm", f"{tmp_path}/test_functions"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for program in ("test_gemm", "test_functions"):
        done = subprocess.run([tmp_path / program], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def accepted(reader, blob):
    try:
        reader(blob)
        return True
    except ValueError as error:
        message = str(error)
    assert "expected" in message
    return False


def reseal(blob):
    struct.pack_into("<I", blob, 8, blob_header.checksum(bytes(blob)))
    return bytes(blob)


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_both_readers_refuse_the_same(mask):
    """Bytes changed one at a time, with the checksum made right again."""
    refused = 0
    for blob in blobs():
        for at in itertools.chain(range(128), range(128, len(blob), 11)):
            changed = bytearray(blob)
            changed[at] ^= mask
            changed = reseal(changed)
            native_too = accepted(lambda b: NativeOp(b).close(), changed)
            assert accepted(read_blob, changed) == native_too, f"byte {at}"
            refused += not native_too
    assert refused > 300


def test_both_readers_want_floats_of_0_or_32_bits():
    """Every value in every channel of three, the second of which is dropped."""
    weight = random_weight(np.random.default_rng(0), "floats", (2, 3))
    weight = dataclasses.replace(weight, bits=np.array([32, 0, 32]))
    blob = write_blob(PackedLayer("dense", weight, FloatGrid()))
    for at, value in itertools.product(range(128, 131), range(256)):
        changed = bytearray(blob)
        changed[at] = value
        # Any other set of channels is at odds with the length of the codes.
        sound = changed == blob
        changed = reseal(changed)
        assert accepted(lambda b: NativeOp(b).close(), changed) == sound
        assert accepted(read_blob, changed) == sound


def test_truncated_and_flipped_blobs_are_refused():
    for blob in blobs():
        for size in range(0, len(blob), 61):
            assert not accepted(NativeOp, blob[:size])
        for at in range(0, len(blob), 17):
            broken = bytearray(blob)
            broken[at] ^= 0x40
            assert not accepted(NativeOp, bytes(broken))


def test_the_library_needs_only_libc_libm_and_threads():
    if not sys.platform.startswith("linux") or not shutil.which("readelf"):
        pytest.skip("needs readelf")
    path = str(native.library_path())
    listing = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True)
    needed = [
        line.split("[")[1].rstrip("]") for line in listing.stdout.splitlines() if "NEEDED" in line
    ]
    assert set(needed) <= {"libc.so.6", "libm.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2"}


def test_only_files_of_an_instruction_set_hold_its_code(tmp_path):
    if not shutil.which("objdump") or not shutil.which("gcc"):
        pytest.skip("needs gcc and objdump")
    subprocess.run(
        ["make", "-s", "-j2", "-C", str(KERNELS), "library", f"BUILD={tmp_path}"], check=True
    )
    for path in tmp_path.glob("*.o"):
        code = subprocess.run(["objdump", "-d", path], capture_output=True, text=True, check=True)
        wide = {width for width in ("ymm", "zmm") if width in code.stdout}
        words = path.stem.split("_")
        allowed = {"ymm"} if "avx2" in words else {"ymm", "zmm"} if "avx512" in words else set()
        assert wide <= allowed, path.name
        assert wide or not allowed, path.name


def test_a_missing_library_is_explained(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    with pytest.raises(FileNotFoundError, match="build_ext --inplace"):
        native.library_path()
