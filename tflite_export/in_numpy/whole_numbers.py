"""Layers whose sums are whole numbers, which are scaled in float32: the twin of `kernels/whole.c`.

    y = clamp(float32(total) * float32(multiplier * unit * scale / parts) + bias, act_min, act_max)

Where the offsets of weights and inputs are whole or half steps, the numbers are whole, too, in
steps or half steps, and so are the sums of their products. If a layer's totals are below 2**30 in
magnitude, and some conditions that depend on the layer alone hold, the C library makes its outputs
so, in float32. `parts` are powers of two, so it does not matter to a bit how many there are.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from kerasbits.packed import FloatGrid, Floats, InputGrid, PlanesGrid, Table, TableGrid, Uniform
from tflite_export.layer import PackedLayer

_MOST_STEPS = 2 * (2**24 - 2**16)
_MOST_TOTAL = 2**30
_LEAST_SCALE, _MOST_SCALE = 2.0**-100, 2.0**100
_MOST_DEPTHWISE_TAPS, _MOST_DEPTHWISE_LEVEL, _MOST_DEPTHWISE_WEIGHT = 257, 255, 2**15 - 1


@dataclasses.dataclass(frozen=True)
class WholeInputs:
    """Inputs as `unit / parts * (parts * level + offset)`.

    Args:
        unit: value of a level.
        parts: 1 or 2.
        offset: value of level 0, in parts of a unit.
        top: largest level.
    """

    unit: float
    parts: int
    offset: int
    top: int

    @property
    def most(self) -> int:
        """Largest magnitude of an input, in parts of a unit."""
        return max(abs(self.offset), abs(self.offset + self.parts * self.top))

    @property
    def level_of_zero(self) -> int:
        """The level whose value is exactly 0, -1 if there is none."""
        level, rest = divmod(-self.offset, self.parts)
        return level if rest == 0 and 0 <= level <= self.top else -1


@dataclasses.dataclass(frozen=True)
class WholeLayer:
    """A layer on whole numbers.

    Args:
        inputs: what levels of the input mean.
        weights: rows of the blob in whole numbers, float64 (O, K); dropped rows are 0.
        scale: value of a total, float32 (O,).
    """

    inputs: WholeInputs
    weights: np.ndarray
    scale: np.ndarray

    def numbers(self, grid: InputGrid, x: np.ndarray) -> np.ndarray:
        """The quantized input in whole numbers, float64."""
        levels = grid.codes(x).astype(np.float64)
        if isinstance(grid, TableGrid):
            index = levels.astype(np.int64) - (len(grid.levels) - 1 if grid.signed else 0)
            return np.sign(index) * np.asarray(grid.levels, np.float64)[np.abs(index)]
        return self.inputs.parts * levels + self.inputs.offset

    def scaled(self, totals: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        """Outputs before the clamp, float32, of totals (..., O). No bias is one of 0."""
        return totals.astype(np.float32) * self.scale + np.float32(0 if bias is None else bias)


def whole_layer(layer: PackedLayer) -> WholeLayer | None:
    """The layer in whole numbers, or None if it is scaled in float64."""
    if isinstance(layer.grid, FloatGrid) or isinstance(layer.weight.encoding, Floats):
        return None
    inputs, found = _inputs(layer.grid), _weights(layer)
    if inputs is None or found is None:
        return None
    unit, weights, most = found
    kept = _kept(layer)
    multiplier = np.ones(1) if layer.multiplier is None else layer.multiplier.astype(np.float64)
    with np.errstate(all="ignore"):
        scale = np.broadcast_to(multiplier * inputs.unit * unit, kept.shape)
    size = np.abs(scale[kept])
    if not ((size == 0) | ((size >= _LEAST_SCALE) & (size <= _MOST_SCALE))).all():
        return None
    if most * layer.row_size * inputs.most >= _MOST_TOTAL:
        return None
    if layer.op == "depthwise_conv2d" and not (kept.any() and _fits_depthwise(layer, inputs, most)):
        return None
    scale = np.where(kept, scale / inputs.parts, 0)
    return WholeLayer(inputs, np.where(kept[:, None], weights, 0.0), scale.astype(np.float32))


def _kept(layer: PackedLayer) -> np.ndarray:
    bits = layer.spread(np.asarray(layer.weight.bits))
    return np.broadcast_to(bits, (layer.out_channels,)) > 0


def _ratio(value: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Parts and steps with `value == step * steps / parts`; no parts where there are none."""
    value, step = np.broadcast_arrays(np.float64(value), np.float64(step))
    with np.errstate(all="ignore"):
        halves = np.where(value == 0, 0, np.rint(2 * value / step))
        good = (value == 0) | ((np.abs(halves) < _MOST_STEPS) & (halves * step == 2 * value))
    halves = np.where(good, halves, 0).astype(np.int64)
    parts = np.where(good, 1 + halves % 2, 0)
    return parts, np.where(parts == 1, halves // 2, halves)


def _inputs(grid: InputGrid) -> WholeInputs | None:
    if isinstance(grid, TableGrid):
        top = int(grid.levels[-1])
        low = -top if grid.signed else 0
        return WholeInputs(np.float64(np.float32(grid.scale)), 1, low, top - low)
    if isinstance(grid, PlanesGrid):
        scales = np.asarray(grid.scales, np.float32).astype(np.float64)
        doubled = scales[-1] * 2.0 ** np.arange(grid.bits - 1, -1, -1)
        top = 2**grid.bits - 1
        return WholeInputs(2 * scales[-1], 2, -top, top) if (scales == doubled).all() else None
    unit = np.float64(np.float32(grid.step))
    parts, steps = (int(v) for v in _ratio(np.float32(grid.origin), unit))
    if not parts:
        return None
    return WholeInputs(unit, parts, steps - parts * int(grid.zero), 2**grid.bits - 1)


def _weights(layer: PackedLayer) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Value of a number (O,), rows of numbers (O, K), and the largest magnitude of any number that
    a kept row's width allows."""
    encoding, kept = layer.weight.encoding, _kept(layer)

    def each(values):
        spread = np.asarray(layer.spread(np.asarray(values)), np.float64)
        return np.broadcast_to(spread, (*spread.shape[:-1], layer.out_channels))

    codes = layer.rows(np.asarray(layer.weight.codes)).astype(np.int64)
    if isinstance(encoding, Table):
        levels = np.asarray(encoding.levels, np.float64)
        return each(encoding.scale), levels[codes], np.abs(levels).max() if kept.any() else 0
    bits = each(layer.weight.bits)
    if isinstance(encoding, Uniform):
        step, origin, zero = each(encoding.scale), each(encoding.origin), each(encoding.zero)
    else:
        planes = each(encoding.plane_scale)
        step, origin, zero = planes[0], each(encoding.offset), np.zeros(len(kept))
        doubled = planes[0] * 2.0 ** np.arange(len(planes))[:, None]
        if kept.any() and not (planes == doubled)[:, kept].all():
            return None
    parts, steps = _ratio(origin, step)
    if not parts[kept].all():
        return None
    parts = np.maximum(parts, 1)
    low = steps - parts * zero
    ends = np.abs(np.stack([low, low + parts * (2**bits - 1)]))[:, kept]
    return step / parts, parts[:, None] * codes + low[:, None], ends.max(initial=0)


def _fits_depthwise(layer: PackedLayer, inputs: WholeInputs, most: float) -> bool:
    """Whether the C library does a depthwise layer on whole numbers."""
    padded = layer.padding == "same" or (layer.padding != "valid" and np.any(layer.padding))
    outside = padded or max(layer.input_dilations) > 1
    return (
        inputs.top <= _MOST_DEPTHWISE_LEVEL
        and layer.row_size <= _MOST_DEPTHWISE_TAPS
        and most <= _MOST_DEPTHWISE_WEIGHT
        and (inputs.level_of_zero >= 0 or not outside)
    )
