"""Quantized tensors as whole numbers, and the grids that give the numbers their values.

NumPy only. This is the common language of quantizers and exporters: a quantizer writes it
(`Quantizer.encode`, `Quantizer.grid`), an exporter reads it and needs to know no method.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

FLOAT_BITS = 32
"""Bits reported for values that stay floating point."""

MAX_CODE_BITS = 16
"""Widest code that is packed; wider grids stay float."""


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Evenly spaced levels: `value = origin + scale * (code - zero)`.

    Args:
        scale: (C,) or (1,) float32, value per code step.
        zero: (C,) or (1,) int32, the code of `origin`.
        origin: (C,) or (1,) float32. With `origin` 0 the value 0 is exactly a code.
    """

    scale: np.ndarray
    zero: np.ndarray
    origin: np.ndarray


@dataclasses.dataclass(frozen=True)
class Planes:
    """Sums of bit planes: `value = offset + sum_p plane_scale[p] * bit_p(code)`.

    Args:
        plane_scale: (P, C) or (P, 1) float32, value of a set bit p (bit 0 is the lowest bit).
        offset: (C,) or (1,) float32, value of code 0.
    """

    plane_scale: np.ndarray
    offset: np.ndarray


@dataclasses.dataclass(frozen=True)
class Table:
    """Listed levels: `value = scale * levels[code]`.

    Args:
        levels: (L,) int16, whole numbers in any order, L <= 2**bits.
        scale: (C,) or (1,) float32, value per unit of level.
    """

    levels: np.ndarray
    scale: np.ndarray


@dataclasses.dataclass(frozen=True)
class Floats:
    """Values that stay float32 (widths above 16 bits, or layers that are not quantized)."""

    values: np.ndarray


Encoding = Uniform | Planes | Table | Floats


@dataclasses.dataclass(frozen=True)
class PackedTensor:
    """A quantized kernel.

    Args:
        name: path of the layer.
        codes: unsigned codes in Keras order, `uint16`; all 0 where a channel has 0 bits.
        bits: (C,) whole bits of each output channel. 0 means the channel is zero and takes no
            space. Channels of a `Table` or `Planes` tensor have either 0 or one common width.
        channel_axis: axis of the output channels.
        encoding: what the codes mean. With `Floats`, `codes` is empty and `bits` is 32 or 0.
    """

    name: str
    codes: np.ndarray
    bits: np.ndarray
    channel_axis: int
    encoding: Encoding

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the kernel."""
        values = self.encoding.values if isinstance(self.encoding, Floats) else self.codes
        return tuple(values.shape)

    @property
    def code_bytes(self) -> int:
        """Bytes that the codes take in a file (scales and headers not counted)."""
        return code_bytes(self.bits, int(np.prod(self.shape)) // max(1, len(self.bits)))

    def rearranged(
        self, order: Callable[[np.ndarray], np.ndarray], channel_axis: int
    ) -> PackedTensor:
        """The same elements in another order: `order` transposes, reshapes or flips an array.

        `channel_axis` is where the channels are afterwards; theirs must stay in order.
        """
        if isinstance(self.encoding, Floats):
            encoding = Floats(order(np.asarray(self.encoding.values)))
            return dataclasses.replace(self, channel_axis=channel_axis, encoding=encoding)
        return dataclasses.replace(self, codes=order(self.codes), channel_axis=channel_axis)

    def decode(self) -> np.ndarray:
        """The values, float32, in the shape of the kernel."""
        is_float = isinstance(self.encoding, Floats)
        stored = np.asarray(self.encoding.values, np.float32) if is_float else self.codes
        last = np.moveaxis(stored, self.channel_axis, -1)
        values = last if is_float else _values(last, self.encoding)
        values = np.where(self.bits > 0, values, np.float32(0))
        return np.moveaxis(values.astype(np.float32), -1, self.channel_axis)


def _values(codes: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Values of codes whose last axis is the channel."""
    if isinstance(encoding, Uniform):
        steps = (codes.astype(np.int32) - encoding.zero).astype(np.float32)
        return encoding.origin + encoding.scale * steps
    if isinstance(encoding, Table):
        return encoding.scale * encoding.levels.astype(np.float32)[codes]
    total = np.broadcast_to(encoding.offset, codes.shape).astype(np.float32)
    for p, scale in enumerate(encoding.plane_scale):
        total = total + scale * ((codes >> p) & 1).astype(np.float32)
    return total


def code_bytes(bits: np.ndarray, channel_size: int) -> int:
    """Bytes of the packed codes of a tensor.

    Channels of equal width are packed together, one stream of bits a plane, each stream padded
    to whole 64-bit words: `sum_b b * 8 * ceil(n_b * channel_size / 64)`. Float channels take 4
    bytes a value.

    Args:
        bits: (C,) whole bits of each channel.
        channel_size: elements in one channel.
    """
    total = 0
    for b, channels in zip(*np.unique(np.asarray(bits, np.int64), return_counts=True), strict=True):
        if b == FLOAT_BITS:
            total += 4 * int(channels) * channel_size
        elif b > 0:
            total += int(b) * 8 * -(-int(channels) * channel_size // 64)
    return total


@dataclasses.dataclass(frozen=True)
class FloatGrid:
    """An input that stays float, clipped to `[lo, hi]` (infinite if not clipped)."""

    lo: float = -np.inf
    hi: float = np.inf
    bits: int = FLOAT_BITS


@dataclasses.dataclass(frozen=True)
class UniformGrid:
    """Evenly spaced input levels, all arithmetic in float32:

        code = clip(round((clip(x, lo, hi) - origin) / step) + zero, 0, 2**bits - 1)
        value = origin + step * (code - zero)

    Ties round to even. With `origin` 0 zero padding is exactly the code `zero`.
    """

    bits: int
    lo: float
    hi: float
    origin: float
    step: float
    zero: int

    def codes(self, x: np.ndarray) -> np.ndarray:
        """Codes of float values; NaN has code 0."""
        x = np.clip(np.asarray(x, np.float32), np.float32(self.lo), np.float32(self.hi))
        with np.errstate(over="ignore"):  # an infinite step count has an outer code, too
            steps = np.rint((x - np.float32(self.origin)) / np.float32(self.step))
        codes = np.clip(steps + self.zero, 0, 2**self.bits - 1)
        return np.where(np.isnan(x), 0, codes).astype(np.uint16)

    def values(self, codes: np.ndarray) -> np.ndarray:
        """Values of codes, float32."""
        steps = (codes.astype(np.int32) - self.zero).astype(np.float32)
        return np.float32(self.origin) + np.float32(self.step) * steps

    def border_distance(self, x: np.ndarray) -> np.ndarray:
        """Distance of `x` from the nearest border between two codes, in units of x."""
        x = np.clip(np.asarray(x, np.float64), self.lo, self.hi)
        t = (x - self.origin) / self.step
        return np.abs(t - np.floor(t) - 0.5) * self.step


@dataclasses.dataclass(frozen=True)
class TableGrid:
    """Listed input levels, unsigned or mirrored:

        index = number of midpoints strictly below |x / unit|      (x < 0 is index 0 if unsigned)
        level = sign(x) * levels[index];  value = scale * level

    Codes are `index` if unsigned, else `index_of_top + sign(x) * index`, so that they rise with x.

    Args:
        bits: bits of a code.
        signed: whether negative values have levels of their own.
        levels: (L,) int16 magnitudes, rising from 0.
        midpoints: (L - 1,) float32 borders in units of `unit`.
        unit: float, the clipping threshold.
        scale: float, value per unit of level.
    """

    bits: int
    signed: bool
    levels: np.ndarray
    midpoints: np.ndarray
    unit: float
    scale: float

    def codes(self, x: np.ndarray) -> np.ndarray:
        """Codes of float values; NaN has code 0."""
        with np.errstate(over="ignore"):  # infinity lies above all borders, too
            u = np.asarray(x, np.float32) / np.float32(self.unit)
        magnitude = np.abs(u) if self.signed else np.maximum(u, 0)
        index = np.searchsorted(self.midpoints, magnitude, side="left")
        if self.signed:
            index = len(self.levels) - 1 + np.where(u < 0, -index, index)
        return np.where(np.isnan(u), 0, index).astype(np.uint16)

    def values(self, codes: np.ndarray) -> np.ndarray:
        """Values of codes, float32."""
        index = codes.astype(np.int32) - (len(self.levels) - 1 if self.signed else 0)
        level = np.sign(index) * self.levels[np.abs(index)].astype(np.int32)
        return np.float32(self.scale) * level.astype(np.float32)

    def border_distance(self, x: np.ndarray) -> np.ndarray:
        """Distance of `x` from the nearest border between two codes, in units of x."""
        u = np.asarray(x, np.float64) / self.unit
        magnitude = np.abs(u) if self.signed else np.maximum(u, 0)
        at = np.searchsorted(self.midpoints, magnitude)
        mids = np.concatenate([[-np.inf], self.midpoints.astype(np.float64), [np.inf]])
        return np.minimum(magnitude - mids[at], mids[at + 1] - magnitude) * self.unit


@dataclasses.dataclass(frozen=True)
class PlanesGrid:
    """Signs of successive residuals (least squares binary inputs), in float32:

        r = clip(x, lo, hi)
        for each scale v_i:  s_i = +1 if r >= 0 else -1;  r = r - v_i * s_i
        value = sum_i v_i s_i;  bit (k - 1 - i) of the code is s_i > 0

    The first scale is the highest bit, so codes rise with x for `k <= 2`.

    Args:
        scales: (k,) float32.
        lo, hi: clip of the input. It can change a code only for `k >= 3`, where the first
            scales may add up to more than `hi`.
    """

    scales: np.ndarray
    lo: float = -np.inf
    hi: float = np.inf

    @property
    def bits(self) -> int:
        """Number of planes."""
        return len(self.scales)

    def codes(self, x: np.ndarray) -> np.ndarray:
        """Codes of float values; NaN has code 0."""
        return self._walk(x)[0]

    def border_distance(self, x: np.ndarray) -> np.ndarray:
        """Distance of `x` from the nearest border between two codes, in units of x."""
        return self._walk(x)[1]

    def _walk(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r = np.clip(np.asarray(x, np.float32), np.float32(self.lo), np.float32(self.hi))
        code = np.zeros(r.shape, np.uint16)
        distance = np.full(r.shape, np.inf)
        for v in np.asarray(self.scales, np.float32):
            positive = r >= 0
            distance = np.minimum(distance, np.abs(r.astype(np.float64)))
            code = (code << 1) | positive
            r = r - np.where(positive, v, -v)
        return code.astype(np.uint16), distance

    def values(self, codes: np.ndarray) -> np.ndarray:
        """Values of codes, float32."""
        total = np.zeros(codes.shape, np.float32)
        for i, v in enumerate(np.asarray(self.scales, np.float32)):
            total = total + np.where((codes >> (self.bits - 1 - i)) & 1, v, -v)
        return total


InputGrid = FloatGrid | UniformGrid | TableGrid | PlanesGrid


def frozen_copy(array: Any, dtype: Any) -> np.ndarray:
    """A read-only copy, so that records holding arrays stay constant."""
    copy = np.array(array, dtype)
    copy.setflags(write=False)
    return copy
