"""How a kernel is stored in the types that stock TFLite has: INT2, INT4, INT8, INT16, FLOAT32.

A kernel becomes a sum of dequantized integers and, at most, a constant for each channel:

    wq = sum_t scale_t * (integers_t - zero_t) + offset

with the same decoded values, up to float32 rounding. A folded batch norm's multiplier goes into the
scales; where it is negative, the integers change their sign.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from kerasbits.packed import Floats, Planes, Table, Uniform
from tflite_export.layer import PackedLayer
from tflite_export.stock.graph import WIDTHS

CONTAINERS = ("INT2", "INT4", "INT8", "INT16")
"""From the narrowest to the widest."""

TERM_BYTES = 300
"""What the records of a constant, of what it is dequantized to and of that operator take."""

_SMALLEST_SCALE = 1e-37
"""Below this a float32 is not normal, and runtimes refuse it as a scale."""


@dataclasses.dataclass(frozen=True)
class Steps:
    """Whole numbers of steps: `value = scale * steps`, arrays in kernel order, channels last
    (first for an embedding), `scale` of shape (1,) or (C,)."""

    steps: np.ndarray
    scale: np.ndarray


@dataclasses.dataclass(frozen=True)
class Term:
    """One stored constant: `value = scale * (integers - zero)`.

    Args:
        container: a type, such as "INT4".
        integers: in kernel order.
        scale, zero: (1,), or (C,) along the channel axis.
    """

    container: str
    integers: np.ndarray
    scale: np.ndarray
    zero: np.ndarray

    @property
    def code_bytes(self) -> int:
        """Bytes of the integers."""
        return -(-self.integers.size * WIDTHS[self.container] // 8)

    @property
    def total_bytes(self) -> int:
        """Bytes with scales and zero points."""
        return self.code_bytes + 12 * self.scale.size


@dataclasses.dataclass(frozen=True)
class StockKernel:
    """A kernel as stored.

    Args:
        values: float32, what it decodes to, the multiplier in it, in kernel order: channels last,
            those of a depthwise kernel `[kh, kw, out]`; of an embedding along `axis`.
        axis: of the channels.
        terms: constants that add up to it; none if it is stored as floats.
        offset: (1,) or (C,), added to the terms; None for nothing.
        note: why it is not in the type that its bits call for.
    """

    values: np.ndarray
    axis: int
    terms: tuple[Term, ...] = ()
    offset: np.ndarray | None = None
    note: str = ""

    @property
    def container(self) -> str:
        """Type of the constants."""
        return self.terms[0].container if self.terms else "FLOAT32"

    @property
    def code_bytes(self) -> int:
        """Bytes of the values."""
        return sum(t.code_bytes for t in self.terms) if self.terms else 4 * self.values.size

    @property
    def total_bytes(self) -> int:
        """Bytes with scales, zero points and the offset."""
        if not self.terms:
            return self.code_bytes
        offset = 0 if self.offset is None else 4 * self.offset.size
        return sum(t.total_bytes for t in self.terms) + offset

    def along(self, values: np.ndarray) -> np.ndarray:
        """(1,) or (C,) values, to be broadcast along the channel axis."""
        return along(values, self.values.ndim, self.axis)

    def decode(self) -> np.ndarray:
        """What a runtime makes of it: float32 after each operation."""
        if not self.terms:
            return self.values
        total = sum(_dequantized(self, term) for term in self.terms)
        return total if self.offset is None else total + self.along(np.float32(self.offset))


def stock_kernel(layer: PackedLayer, narrowest: int = 2, smaller: bool = True) -> StockKernel:
    """The smallest way to store a layer's kernel with the values that it has.

    Args:
        layer: as collected.
        narrowest: 2, 4 or 8: bits of the narrowest type that may be used. Runtimes before
                ai-edge-litert 2.1 do not know INT2, those before 1.0 not INT4.
        smaller: take integers only if they are smaller than floats.
    """
    axis, values = _in_order(layer, layer.weight.decode())
    gain = np.ones(1) if layer.multiplier is None else np.asarray(layer.multiplier, np.float64)
    scaled = (values * along(gain, values.ndim, axis)).astype(np.float32)
    floats = StockKernel(scaled, axis)
    if isinstance(layer.weight.encoding, Floats):
        return floats
    for parts, offset, what in _candidates(layer, axis):
        parts = [_multiplied(part, gain, axis) for part in parts]
        terms = tuple(_contained(part, axis, narrowest) for part in parts)
        if None in terms:
            continue
        offset = None if offset is None else (offset * gain).astype(np.float32)
        found = StockKernel(scaled, axis, terms, offset, _note(layer, terms, what))
        if not _same(found):
            continue
        size = found.total_bytes + TERM_BYTES * len(terms)
        if size < floats.total_bytes or not smaller:
            return found
        note = f"float32: {found.container} would take as much room with its scales"
        return dataclasses.replace(floats, note=note)
    return dataclasses.replace(floats, note="float32: no integer type holds its levels")


def along(values: np.ndarray, rank: int, axis: int) -> np.ndarray:
    """(1,) or (C,) values, to be broadcast along one of `rank` axes."""
    return np.reshape(values, [-1 if i == axis else 1 for i in range(rank)])


def _in_order(layer: PackedLayer, values: np.ndarray) -> tuple[int, np.ndarray]:
    """Channel axis, and a kernel-shaped array with one channel for each output."""
    if layer.op == "embedding":
        return layer.weight.channel_axis % values.ndim, values
    if layer.op == "depthwise_conv2d":
        values = values.reshape(*values.shape[:2], -1)
    return values.ndim - 1, values


def _candidates(layer: PackedLayer, axis: int):
    """Ways to write the kernel as whole steps: `(parts, offset, note)`, the best first."""
    weight, encoding = layer.weight, layer.weight.encoding
    _, codes = _in_order(layer, np.asarray(weight.codes, np.int64))
    kept = along(layer.spread(np.asarray(weight.bits)) > 0, codes.ndim, axis)

    def spread(values):
        return layer.spread(np.asarray(values, np.float64))

    def over(values):
        return along(spread(values), codes.ndim, axis)

    if isinstance(encoding, Table):
        levels = encoding.levels.astype(np.int64)
        unit = max(int(np.gcd.reduce(levels)), 1)
        steps = np.where(kept, levels[codes] // unit, 0)
        yield [Steps(steps, spread(encoding.scale) * unit)], None, "level table"
    elif isinstance(encoding, Uniform):
        steps = np.where(kept, codes - over(encoding.zero).astype(np.int64), 0)
        scale, origin = spread(encoding.scale), spread(encoding.origin)
        for parts in _refined(steps, scale, origin, kept, axis):
            yield [parts], None, ""
        if kept.all():
            yield [Steps(steps, scale)], origin, "grid with an origin, which is added"
    elif isinstance(encoding, Planes):
        yield from _planes(codes, spread(encoding.plane_scale), spread(encoding.offset), kept, axis)


def _planes(codes, scales, offset, kept, axis):
    """As one number of steps if the planes are multiples of each other, else one term a plane."""
    positive = np.where(scales > 0, scales, np.inf)
    base = positive.min(axis=0)
    base = np.where(np.isfinite(base), base, 1.0)
    ratios = np.rint(scales / base).astype(np.int64)
    bits = [(codes >> p) & 1 for p in range(len(scales))]
    if ratios.max() < 2**15:
        steps = sum(along(r, codes.ndim, axis) * b for r, b in zip(ratios, bits, strict=True))
        for parts in _refined(np.where(kept, steps, 0), base, offset, kept, axis):
            yield [parts], None, ""
    signs = [Steps(np.where(kept, 2 * b - 1, 0), s / 2) for s, b in zip(scales, bits, strict=True)]
    note = f"{len(signs)} planes of unrelated scales, which are added"
    rest = offset + scales.sum(axis=0) / 2
    yield signs, None, note
    if kept.all():
        yield signs, rest, note


def _refined(steps, scale, origin, kept, axis):
    """Steps with an origin that is a whole number of steps, or of half steps, taken in."""
    for parts in (1, 2):
        shift = np.rint(parts * origin / scale)
        if np.abs(shift).max() < 2**31:
            moved = parts * steps + along(shift.astype(np.int64), steps.ndim, axis)
            yield Steps(np.where(kept, moved, 0), scale / parts)


def _multiplied(part: Steps, gain: np.ndarray, axis: int) -> Steps:
    """The steps times a number for each channel: in the scale, its sign in the steps."""
    scale = part.scale * np.abs(gain)
    vanishes = scale < _SMALLEST_SCALE
    sign = np.where(vanishes, 0, np.sign(gain)).astype(np.int64)
    steps = part.steps * along(sign, part.steps.ndim, axis)
    return Steps(steps, np.where(vanishes, 1.0, scale))


def _contained(part: Steps, axis: int, narrowest: int) -> Term | None:
    """The steps in the narrowest type that holds them."""
    scale = part.scale.astype(np.float32)
    if not np.isfinite(scale).all():
        return None
    if (scale == scale[0]).all():
        scale = scale[:1]
    others = tuple(i for i in range(part.steps.ndim) if i != axis)
    lows, highs = part.steps.min(axis=others), part.steps.max(axis=others)
    per_channel = np.broadcast_to(scale, lows.shape)
    for container in CONTAINERS:
        half = 2 ** (WIDTHS[container] - 1)
        if WIDTHS[container] < narrowest:
            continue
        if -half <= lows.min() and highs.max() < half:
            return Term(container, part.steps, scale, np.zeros(scale.shape, np.int64))
        if container == "INT16":  # runtimes take no zero point with it
            return None
        if scale.size == 1 and highs.max() - lows.min() < 2 * half:
            return _shifted(container, part.steps, scale, np.array([-half - lows.min()]), axis)
        if (highs - lows < 2 * half).all():
            return _shifted(container, part.steps, per_channel, -half - lows, axis)
    return None


def _shifted(container, steps, scale, zero, axis) -> Term:
    return Term(container, steps + along(zero, steps.ndim, axis), scale, zero)


def _dequantized(kernel: StockKernel, term: Term) -> np.ndarray:
    steps = (term.integers - kernel.along(term.zero)).astype(np.float32)
    return kernel.along(term.scale) * steps


def _same(kernel: StockKernel) -> bool:
    """Whether it decodes to the values, up to some units in the last place of the largest one."""
    others = tuple(i for i in range(kernel.values.ndim) if i != kernel.axis)
    top = np.abs(kernel.values).max(axis=others, keepdims=True)
    return bool((np.abs(kernel.decode() - kernel.values) <= 4 * np.spacing(top)).all())


def _note(layer: PackedLayer, terms: tuple[Term, ...], what: str) -> str:
    """Why the type is not as narrow as the bits."""
    bits = int(np.max(layer.weight.bits))
    reasons = [what] if what else []
    width = WIDTHS[terms[0].container]
    if len(terms) == 1 and width > max(bits, 1):
        reasons.append(f"{bits}-bit codes in {terms[0].container}")
    return ", ".join(reasons)
