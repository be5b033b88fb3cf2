"""Input grids as operators: the values are those of `kerasbits.packed`, bit for bit."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from stock_files_running import RESOLVERS, Runner, operators

from kerasbits.packed import FloatGrid, PlanesGrid, TableGrid, UniformGrid
from tflite_export import flatbuffer
from tflite_export.stock.graph import StockGraph
from tflite_export.stock.grids import borders, int8_codes, quantized_input

APOT = np.array([0, 1, 2, 3, 4, 6, 8, 12], np.int16)
MIDS = ((APOT[1:] + APOT[:-1]) / 2 / APOT[-1]).astype(np.float32)
MANY = np.arange(60, dtype=np.int16) ** 2
MANY_MIDS = ((MANY[1:] + MANY[:-1]) / 2 / MANY[-1]).astype(np.float32)

GRIDS = {
    "uniform_unsigned": UniformGrid(8, 0.0, 3.0, 0.0, 3.0 / 255, 0),
    "uniform_signed": UniformGrid(8, -1.5, 1.5, 0.0, 1.5 / 127, 127),
    "uniform_4_signed": UniformGrid(4, -1.0, 1.0, 0.0, 1.0 / 7, 7),
    "uniform_3_unsigned": UniformGrid(3, 0.0, 1.0, 0.0, 1.0 / 7, 0),
    "uniform_lopsided": UniformGrid(5, -0.3, 2.8, 0.0, 0.1, 3),
    "uniform_16": UniformGrid(16, -2.0, 2.0, 0.0, 2.0 / 32767, 32767),
    "uniform_origin": UniformGrid(4, -0.37, 1.9, -0.37, np.float32(2.27 / 15), 0),
    "uniform_wide_clip": UniformGrid(3, -9.0, 9.0, 0.5, 0.25, 2),
    "table_unsigned": TableGrid(3, False, APOT, MIDS, 1.7, float(np.float32(1.7 / 12))),
    "table_signed": TableGrid(4, True, APOT, MIDS, 1.7, float(np.float32(1.7 / 12))),
    "table_many": TableGrid(7, True, MANY, MANY_MIDS, 2.1, float(np.float32(2.1 / 3481))),
    "planes_1": PlanesGrid(np.float32([0.7])),
    "planes_2": PlanesGrid(np.float32([0.7, 0.31])),
    "planes_ternary": PlanesGrid(np.float32([0.7, 0.7])),
    "planes_4": PlanesGrid(np.float32([0.3, 0.25, 0.2, 0.9]), -1.0, 1.0),
    "clip": FloatGrid(-0.5, 1.25),
    "float": FloatGrid(),
}


def file_of(grid, count, lowest=-np.inf):
    """A file that only rounds a vector."""
    tree, graph = schema.ModelT(), schema.SubGraphT()
    tree.version, tree.subgraphs, tree.buffers = 3, [graph], [schema.BufferT()]
    tree.operatorCodes, graph.tensors, graph.operators = [], [], []
    edited = StockGraph(tree)
    x = edited.tensor([1, count])
    ends = quantized_input(edited, x, grid, lowest)
    if ends == x:
        ends = edited.add("MUL", [x, edited.number(1.0)])
    graph.operators = edited.take()
    graph.inputs, graph.outputs = np.array([x], np.int32), np.array([ends], np.int32)
    return flatbuffer.write(tree)


def probes(grid):
    """Borders of the codes and their neighbours, all over the range, and far outside."""
    spread = np.random.default_rng(0).normal(0, 2, 500)
    found = [spread, np.array([0.0, -0.0, 1e5, -1e5, 1e-30, -1e-30])]
    if isinstance(grid, UniformGrid) and int8_codes(grid) is None:
        found.append(np.array([1e30, -1e30, 3e38, -3e38]))  # QUANTIZE ends at 2^31 steps
    if not isinstance(grid, FloatGrid):
        edges = borders(grid)
        edges = edges[np.isfinite(edges)]
        found += [edges, np.nextafter(edges, -np.inf, dtype=np.float32)]
        found += [np.nextafter(edges, np.inf, dtype=np.float32)]
    return np.concatenate(found).astype(np.float32)[None]


def expected(grid, x):
    if isinstance(grid, FloatGrid):
        return np.clip(x, np.float32(grid.lo), np.float32(grid.hi))
    return grid.values(grid.codes(x))


@pytest.mark.parametrize("name", GRIDS)
def test_values_are_those_of_the_grid(name):
    grid = GRIDS[name]
    x = probes(grid)
    data = file_of(grid, x.size)
    by_int8 = "QUANTIZE" in operators(data)
    assert by_int8 == (isinstance(grid, UniformGrid) and int8_codes(grid) is not None)
    for resolver in (RESOLVERS.AUTO, RESOLVERS.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
        found = Runner(data, resolver, keep=False)(x)[0]
        wanted = expected(grid, x)
        if by_int8:  # at a border either neighbour is right
            tied = grid.border_distance(x) < 1e-6 * np.abs(x).clip(0, 4)
            assert np.abs(found - wanted).max() <= 1.001 * grid.step
            # DEQUANTIZE may compute scale * code - scale * zero.
            atol = 2**-16 * grid.step
            np.testing.assert_allclose(found[~tied], wanted[~tied], rtol=1e-6, atol=atol)
            assert tied.mean() < 0.7
        else:
            np.testing.assert_array_equal(found, wanted)


def test_borders_of_a_grid_by_hand():
    grid = UniformGrid(2, 0.0, 3.0, 0.0, 1.0, 0)
    # Ties round to even: 0.5 has code 0, 1.5 code 2, 2.5 code 2.
    above = np.float32([np.nextafter(np.float32(0.5), np.float32(1)), 1.5])
    np.testing.assert_array_equal(borders(grid)[:2], above)
    assert borders(grid)[2] == np.nextafter(np.float32(2.5), np.float32(3))
    np.testing.assert_array_equal(borders(PlanesGrid(np.float32([1.0]))), [0.0])
    # The signs of x and of x -+ 2: borders at -2, 0 and 2.
    np.testing.assert_array_equal(borders(PlanesGrid(np.float32([2.0, 0.5]))), [-2.0, 0.0, 2.0])


def test_int8_codes_need_as_few_clamps_as_possible():
    full = UniformGrid(8, 0.0, 2.55, 0.0, 0.01, 0)
    assert int8_codes(full) == (-128, -np.inf, np.inf)
    few = UniformGrid(4, 0.0, 15.0, 0.0, 1.0, 0)
    assert int8_codes(few) == (-128, -np.inf, 15.0)  # below 0 int8 ends
    assert int8_codes(few, lowest=0.0) == (112, -np.inf, np.inf)  # above 15 int8 ends
    assert int8_codes(UniformGrid(9, 0.0, 5.11, 0.0, 0.01, 0)) is None
    assert int8_codes(UniformGrid(4, -0.3, 15.0, -0.3, 1.0, 0)) is None
    assert "MINIMUM" not in operators(file_of(few, 3, lowest=0.0))
    found = Runner(file_of(few, 3, lowest=0.0))(np.float32([[0.2, 14.9, 99.0]]))[0]
    np.testing.assert_array_equal(found, [[0.0, 15.0, 15.0]])


def test_listed_levels_take_few_operators():
    found = operators(file_of(GRIDS["planes_2"], 5))
    assert len(found) == 9
    assert found.count("GATHER") == 2
