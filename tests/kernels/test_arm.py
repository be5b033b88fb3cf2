"""The library on ARM under qemu: the C tests, and whole layers bit for bit as on this machine."""

import pathlib

import numpy as np
import pytest
from kernels.layers_for_tests import ENCODINGS, GRIDS, inputs, random_layer, random_weight
from kernels.machines_for_tests import MACHINES, Board
from kernels.test_c_checks import kernels_of
from kernels.test_native import CONVS

from kerasbits.packed import FloatGrid
from tflite_export.blob.writer import write_blob
from tflite_export.layer import PackedLayer
from tflite_export.native import NativeOp

PROCESSORS = [(name, cpu) for name, machine in MACHINES.items() for cpu in machine.processors]


def layers():
    """Layers and inputs: each encoding with each grid, each geometry with several of both."""
    rng = np.random.default_rng(0)
    for i, (encoding, grid) in enumerate((e, g) for e in ENCODINGS for g in GRIDS):
        shape = ((37, 7), (130, 18), (1, 1))[i % 3]
        yield random_layer(rng, "dense", shape, encoding, grid), inputs(rng, (5, shape[0]))
    for i, (op, shape, image, window) in enumerate(c for c in CONVS for _ in range(len(GRIDS))):
        encoding, grid = ENCODINGS[i * 7 % len(ENCODINGS)], GRIDS[i % len(GRIDS)]
        layer = random_layer(rng, op, shape, encoding, grid, **window)
        yield layer, inputs(rng, (*image, layer.groups * layer.in_channels))
    for encoding, axis in ((e, a) for e in ENCODINGS for a in (0, 1)):
        table = random_weight(rng, encoding, (21, 70), axis)
        yield PackedLayer("embedding", table, FloatGrid()), rng.integers(0, 21, (2, 3), np.int32)
    # More than one block of pixels, and every form at once.
    layer = random_layer(
        rng, "conv2d", (3, 3, 70, 33), "uniform_mixed", "uniform1_no_zero", padding="same"
    )
    yield layer, inputs(rng, (1, 23, 19, 70))
    x = inputs(rng, (1, 4, 37))
    x[..., :9] = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, -3e38, 3e38, 0.5]
    for grid in GRIDS:
        yield random_layer(rng, "dense", (37, 7), "uniform_mixed", grid), x


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """A file of blobs and inputs for `run_blob`, and the outputs of this machine."""
    path = tmp_path_factory.mktemp("cases") / "cases"
    outputs = []
    with path.open("wb") as file, np.errstate(invalid="ignore"):
        for layer, x in layers():
            blob = write_blob(layer)
            assert len(blob) % 4 == 0
            file.write(np.array([len(blob), x.ndim, *x.shape], np.uint32).tobytes())
            file.write(blob + x.tobytes())
            with NativeOp(blob) as op:
                outputs.append(op.run(x))
    return path, outputs


def built(name):
    """A machine and `run_blob` for it."""
    machine = MACHINES[name]
    machine.need()
    return machine, machine.program("run_blob")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.long] * (n == "armhf")) for n in MACHINES]
)
def test_c_tests_under_sanitizers(tmp_path, name):
    MACHINES[name].need()
    printed = MACHINES[name].make("check", tmp_path)
    families = ("scalar", "neon", "neondot", "neoni8mm") if name == "aarch64" else ("scalar",)
    for test in ("blobs", "models", *kernels_of(*families)):
        assert f"{test} ".ljust(25) + "ok\n" in printed


def same_bits(got, want):
    """Equal in all bits, but NaN is NaN: processors fill in bits of their own."""
    both = np.isnan(got) & np.isnan(want)
    return np.array_equal(
        np.where(both, 0, got.view(np.uint32)), np.where(both, 0, want.view(np.uint32))
    )


def compare(path, outputs):
    got = np.fromfile(path, np.float32)
    assert got.size == sum(y.size for y in outputs)
    at = 0
    for (layer, _), y in zip(layers(), outputs, strict=True):
        part, at = got[at : at + y.size].reshape(y.shape), at + y.size
        assert same_bits(part, y), (layer.op, layer.weight.encoding, layer.grid)


@pytest.mark.parametrize(("name", "processor"), PROCESSORS)
def test_layers_are_bit_identical(tmp_path, cases, name, processor):
    machine, program = built(name)
    printed = machine.run(program, cases[0], tmp_path / "outputs", processor=processor)
    assert printed.split() == [machine.processors[processor]]
    compare(tmp_path / "outputs", cases[1])


def test_scalar_kernels_on_arm(tmp_path, cases):
    machine, program = built("aarch64")
    printed = machine.run(program, cases[0], tmp_path / "outputs", KERASBITS_ISA="scalar")
    assert printed.split() == ["scalar"]
    compare(tmp_path / "outputs", cases[1])


def test_an_instruction_set_that_is_missing_is_refused(tmp_path, cases):
    machine, program = built("aarch64")
    with pytest.raises(AssertionError, match=r"of this machine \(scalar, neon\), got neondot"):
        machine.run(
            program, cases[0], tmp_path / "out", processor="cortex-a53", KERASBITS_ISA="neondot"
        )


def on_board(name):
    """A board and a program for it, from a source beside this one."""
    board = Board()
    board.need()
    return board, board.program(pathlib.Path(__file__).with_name(f"{name}.c"))


@pytest.mark.parametrize("name", ["test_gemm", "test_blob"])
def test_c_tests_on_a_board(name):
    board, program = on_board(name)
    printed = board.run(program)
    for test in {"test_blob": ["blobs"], "test_gemm": kernels_of("scalar")}[name]:
        assert f"{test} ".ljust(25) + "ok\n" in printed


def test_layers_on_a_board_are_bit_identical(tmp_path, cases):
    board, program = on_board("run_blob")
    assert board.run(program, cases[0], tmp_path / "outputs") == "scalar\n"
    compare(tmp_path / "outputs", cases[1])
