"""Input grids as builtin float operators: a float tensor in, its quantized values as floats out.

Three ways, all with the codes of `kerasbits.packed`:

- evenly spaced, 0 a level, at most 256 levels: QUANTIZE to int8 and DEQUANTIZE. How a tie is
  rounded is the runtime's choice;
- evenly spaced otherwise: the formula itself, `ROUND((x - origin) / step) * step + origin`;
- listed levels: bisection over the borders between the codes.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from kerasbits.packed import FloatGrid, InputGrid, TableGrid, UniformGrid
from tflite_export.stock.graph import StockGraph

_SHARED_LEVELS = 32
"""Tables beyond this are stored without unit and scale, once for all layers that have them."""


def quantized_input(graph: StockGraph, x: int, grid: InputGrid, lowest: float = -math.inf) -> int:
    """Add operators that round tensor `x` to a grid; return the float tensor of the values.

    Args:
        graph: to add to.
        x: a float tensor.
        grid: of the input.
        lowest: what is known to be no larger than any value of `x`.
    """
    if isinstance(grid, FloatGrid):
        return clamped(graph, x, grid.lo, grid.hi, lowest)
    if isinstance(grid, TableGrid) and len(grid.levels) > _SHARED_LEVELS:
        x = graph.add("DIV", [x, graph.number(grid.unit)])
        levels = _listed(graph, x, dataclasses.replace(grid, unit=1.0, scale=1.0))
        return graph.add("MUL", [levels, graph.number(grid.scale)])
    if not isinstance(grid, UniformGrid):
        return _listed(graph, x, grid)
    found = int8_codes(grid, lowest)
    if found is None:
        return _rounded(graph, x, grid, lowest)
    zero, low, high = found
    x = clamped(graph, x, low, high, lowest)
    codes = graph.tensor(graph.shape(x), "INT8", (grid.step, zero, 0))
    return graph.add("DEQUANTIZE", [graph.add("QUANTIZE", [x], codes)], version=2)


def end_codes(grid: InputGrid) -> tuple[int, int]:
    """The lowest and the highest code that an input can have."""
    lowest, highest = grid.codes(np.array([-np.inf, np.inf], np.float32))
    return int(lowest), int(highest)


def int8_codes(grid: UniformGrid, lowest: float = -math.inf) -> tuple[int, float, float] | None:
    """Zero point of int8 codes, and the clamp that must stand before they are made.

    The codes lie at an end of int8, where values beyond are cut off by the type itself. None if
    the grid has more levels than int8, or 0 is no level.
    """
    low_code, high_code = end_codes(grid)
    if grid.origin != 0 or high_code - low_code > 255 or not low_code <= grid.zero <= high_code:
        return None
    ends = grid.values(np.array([low_code, high_code]))
    if high_code - low_code == 255 or lowest < ends[0]:
        zero = grid.zero - low_code - 128
        high = math.inf if high_code - low_code == 255 else float(ends[1])
        return zero, -math.inf, high
    return grid.zero - high_code + 127, -math.inf, math.inf


def clamped(graph: StockGraph, x: int, low: float, high: float, lowest: float) -> int:
    """The tensor cut to `[low, high]`, where that can change something."""
    if low > lowest:
        x = graph.add("MAXIMUM", [x, graph.number(low)])
    if high < math.inf:
        x = graph.add("MINIMUM", [x, graph.number(high)])
    return x


def _rounded(graph: StockGraph, x: int, grid: UniformGrid, lowest: float) -> int:
    """The formula of the grid, operation by operation in float32, so bit for bit."""
    step, origin = graph.number(grid.step), graph.number(grid.origin)
    x = clamped(graph, x, grid.lo, grid.hi, lowest)
    if grid.origin:
        x = graph.add("SUB", [x, origin])
    x = graph.add("ROUND", [graph.add("DIV", [x, step])])
    ends = np.float32([max(grid.lo, -3e38), min(grid.hi, 3e38)])
    with np.errstate(over="ignore"):
        reached = np.rint((ends - np.float32(grid.origin)) / np.float32(grid.step))
    low, high = -grid.zero, 2**grid.bits - 1 - grid.zero
    x = clamped(graph, x, low if reached[0] < low else -math.inf, math.inf, -math.inf)
    x = clamped(graph, x, -math.inf, high if reached[1] > high else math.inf, -math.inf)
    x = graph.add("MUL", [x, step])
    return graph.add("ADD", [x, origin]) if grid.origin else x


def borders(grid: InputGrid) -> np.ndarray:
    """For each code but 0 the smallest float32 that has it or a higher one.

    Codes rise with the input, so bisection over the ordered bit patterns of float32 finds them.
    Infinite for a code that no finite input has.
    """
    wanted = np.arange(1, end_codes(grid)[1] + 1)
    # Order of int64 keys = order of the floats: a negative float's magnitude counts down.
    low = np.full(len(wanted), -int(_pattern(np.inf)) - 1, np.int64)
    high = np.full(len(wanted), int(_pattern(np.inf)), np.int64)
    while (high - low > 1).any():
        middle = (low + high) // 2
        reaches = grid.codes(_float_of(middle)) >= wanted
        low, high = np.where(reaches, low, middle), np.where(reaches, middle, high)
    return _float_of(high)


def _pattern(value: float) -> np.uint32:
    return np.float32(value).view(np.uint32)


def _float_of(keys: np.ndarray) -> np.ndarray:
    """The floats at places of the order; place 0 is +0, and -0 has none."""
    magnitude = np.abs(keys).astype(np.uint32).view(np.float32)
    return np.where(keys < 0, -magnitude, magnitude).astype(np.float32)


def _listed(graph: StockGraph, x: int, grid: InputGrid) -> int:
    """Bisection over a tree of borders, at whose leaves the values are.

    Formula: `node = 1`, then for each bit of a code `node = 2 * node + (x >= tree[node])`, at last
    `value = tree[node]`.
    """
    inner = borders(grid)
    depth = max(1, len(inner).bit_length())
    values = _tree(grid, inner, depth)
    tree, node = graph.constant(values, "FLOAT32"), None
    for _ in range(depth):
        border = graph.number(values[1]) if node is None else _looked_up(graph, tree, node)
        reaches = graph.add("GREATER_EQUAL", [x, border], kind="BOOL")
        bit = graph.add("CAST", [reaches], kind="INT32", inDataType=6, outDataType=2)
        twice = graph.constant(np.int32(2), "INT32") if node is None else _doubled(graph, node)
        node = graph.add("ADD", [bit, twice], kind="INT32")
    return _looked_up(graph, tree, node)


def _tree(grid: InputGrid, inner: np.ndarray, depth: int) -> np.ndarray:
    """Places 1 to 2^depth - 1: borders, the children of place i at 2i and 2i + 1; then values."""
    every = np.full(2**depth - 1, np.inf, np.float32)
    every[: len(inner)] = inner
    halves = [2 ** (depth - 1 - level) for level in range(depth)]
    levels = [every[half - 1 :: 2 * half] for half in halves]
    codes = np.minimum(np.arange(2**depth), len(inner)).astype(np.uint16)
    return np.concatenate([np.zeros(1, np.float32), *levels, grid.values(codes)])


def _looked_up(graph: StockGraph, values: int, places: int) -> int:
    return graph.add("GATHER", [values, places], graph.tensor(graph.shape(places)))


def _doubled(graph: StockGraph, node: int) -> int:
    return graph.add("ADD", [node, node], kind="INT32")
