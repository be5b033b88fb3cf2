"""Quantized values as sums of whole numbers times scales, so that their products add up exactly.

    value = sum over terms of scale * whole

`whole` are whole numbers (unless the value stays float), kept in float64, in which their products
and sums are exact below 2**53. All roundings are left to the scales.
"""

from __future__ import annotations

import numpy as np

from kerasbits.packed import FloatGrid, Floats, InputGrid, PlanesGrid, Table, TableGrid, Uniform
from tflite_export.layer import PackedLayer

Term = tuple[np.ndarray, np.ndarray]
"""Scale and whole numbers, float64; the scale is broadcast over the numbers."""


def weight_terms(layer: PackedLayer) -> list[Term]:
    """Terms of the weights as rows of the blob: scales (R, 1), numbers (R, K).

    Rows of 0 bits are not zero here; the caller leaves them out.
    """
    encoding = layer.weight.encoding

    def rows(values):
        return np.asarray(layer.spread(np.asarray(values)), np.float64)[..., None]

    if isinstance(encoding, Floats):
        return [(np.ones((1, 1)), layer.rows(np.asarray(encoding.values)).astype(np.float64))]
    codes = layer.rows(np.asarray(layer.weight.codes)).astype(np.int64)
    if isinstance(encoding, Table):
        return [(rows(encoding.scale), np.asarray(encoding.levels, np.float64)[codes])]
    if isinstance(encoding, Uniform):
        return _steps(rows(encoding.scale), rows(encoding.origin), codes - rows(encoding.zero))
    # A bit is (sign + 1) / 2: symmetric planes have no offset left, and sums of theirs cancel.
    halves = rows(encoding.plane_scale) / 2
    signs = [(half, 2.0 * (codes >> p & 1) - 1) for p, half in enumerate(halves)]
    offset = rows(encoding.offset) + halves.sum(axis=0)
    return [*signs, (offset, np.ones(codes.shape))] if offset.any() else signs


def input_terms(grid: InputGrid, x: np.ndarray) -> list[Term]:
    """Terms of the quantized input, in the shape of `x`."""
    if isinstance(grid, FloatGrid):
        x = np.clip(np.asarray(x, np.float32), np.float32(grid.lo), np.float32(grid.hi))
        return [(np.float64(1), x.astype(np.float64))]
    codes = grid.codes(x).astype(np.int64)
    if isinstance(grid, PlanesGrid):
        scales = np.asarray(grid.scales, np.float32).astype(np.float64)
        planes = [codes >> (grid.bits - 1 - i) & 1 for i in range(grid.bits)]
        return [(scale, 2.0 * plane - 1) for scale, plane in zip(scales, planes, strict=True)]
    if isinstance(grid, TableGrid):
        index = codes - (len(grid.levels) - 1 if grid.signed else 0)
        levels = np.sign(index) * np.asarray(grid.levels, np.float64)[np.abs(index)]
        return [(np.float64(np.float32(grid.scale)), levels)]
    step, origin = np.float64(np.float32(grid.step)), np.float64(np.float32(grid.origin))
    return _steps(step, origin, (codes - grid.zero).astype(np.float64))


def total(terms: list[Term]) -> np.ndarray:
    """The values of terms, float64."""
    return sum(scale * whole for scale, whole in terms)


def _steps(step: np.ndarray, origin: np.ndarray, steps: np.ndarray) -> list[Term]:
    """`origin + step * steps`: one term of half steps where they hit the origin, else two."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        halves = np.rint(np.where(origin == 0, 0.0, 2 * origin / step))
        if np.all((halves * step == 2 * origin) & (np.abs(halves) < 2**24)):
            return [(step / 2, 2 * steps + halves)]
    return [(step, steps), (origin, np.ones(steps.shape))]
