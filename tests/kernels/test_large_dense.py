"""Dense layers whose weights are too many for the caches are read in packed forms."""

import numpy as np
import pytest
from kernels.layers_for_tests import inputs, random_layer
from kernels.reference_for_tests import expected

from tflite_export.blob.writer import write_blob
from tflite_export.native import NativeOp, isa

ISAS = ("scalar", "avx2", "avx512", "neon", "neondot", "neoni8mm")


@pytest.mark.parametrize("grid", ["uniform8", "uniform4", "far_zero"])
@pytest.mark.parametrize("encoding", ["one_bit", "uniform", "uniform_no_zero", "uniform_mixed"])
def test_every_instruction_set_gives_the_bits_of_the_scalar_kernels(monkeypatch, encoding, grid):
    """1030 inputs fill no unit, 530 outputs no tile."""
    rng = np.random.default_rng([len(encoding), len(grid)])
    layer = random_layer(rng, "dense", (1030, 530), encoding, grid)
    blob, x = write_blob(layer), inputs(rng, (3, 1030))
    outputs = {}
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
