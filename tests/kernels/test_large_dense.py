"""Dense layers whose weights are too many for the caches are read in packed forms."""

import numpy as np
import pytest
from kernels.layers_for_tests import f32, inputs, random_layer
from kernels.reference_for_tests import expected

from kerasbits.packed import PackedTensor, PlanesGrid, Uniform
from tflite_export.blob.writer import PackedLayer, write_blob
from tflite_export.native import NativeOp, isa

ISAS = ("scalar", "avx2", "avx512", "neon", "neondot", "neoni8mm")


@pytest.mark.parametrize("grid", ["uniform8", "uniform4", "far_zero"])
@pytest.mark.parametrize("encoding", ["one_bit", "uniform", "uniform_no_zero", "uniform_mixed"])
def test_every_instruction_set_gives_the_bits_of_the_scalar_kernels(monkeypatch, encoding, grid):
    """1030 inputs fill no unit, 530 outputs no tile."""
    rng = np.random.default_rng([len(encoding), len(grid)])
    layer = random_layer(rng, "dense", (1030, 530), encoding, grid)
    check(monkeypatch, layer, inputs(rng, (3, 1030)))


@pytest.mark.parametrize("rows", [5, 10, 20, 100])
def test_signs_meet_tables_and_bits_in_one_layer(monkeypatch, rows):
    """Channels of +-1 may be looked up in tables, those with an uneven offset are always bits."""
    rng = np.random.default_rng(rows)
    origin = f32(np.where(np.arange(512) < 256, -0.5, 0.1234567))
    encoding = Uniform(np.ones(512, np.float32), np.zeros(512, np.int32), origin)
    codes = rng.integers(0, 2, (rows, 512)).astype(np.uint16)
    weight = PackedTensor("w", codes, np.ones(512, int), 1, encoding)
    layer = PackedLayer("dense", weight, PlanesGrid(f32([0.75])))
    check(monkeypatch, layer, inputs(rng, (3, rows)))


def check(monkeypatch, layer, x):
    """Every instruction set against the scalar kernels, and those against float64."""
    blob, outputs = write_blob(layer), {}
    for name in ISAS:
        monkeypatch.setenv("KERASBITS_ISA", name)
        if isa() != name:
            continue
        with NativeOp(blob) as op:
            outputs[name] = op.run(x)
    for name, output in outputs.items():
        np.testing.assert_array_equal(output, outputs["scalar"], err_msg=name)
    y, bound = expected(layer, x)
    assert np.all(np.abs(outputs["scalar"] - y) <= bound)
