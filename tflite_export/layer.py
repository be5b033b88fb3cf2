"""`PackedLayer`: everything a kernel needs to run one layer, still as NumPy arrays."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from kerasbits.packed import (
    FLOAT_BITS,
    FloatGrid,
    Floats,
    InputGrid,
    PackedTensor,
    Planes,
    Table,
)

OPS = ("dense", "conv2d", "depthwise_conv2d", "embedding")

MAX_WINDOW = 2**16 - 1
"""Largest size of a kernel, stride, dilation or padding along an axis."""

_RANKS = {"dense": (2,), "conv2d": (4,), "depthwise_conv2d": (3, 4), "embedding": (2,)}

Padding = str | tuple[tuple[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class PackedLayer:
    """One layer: `y = clamp(multiplier * sum_k xq[k] * wq[o, k] + bias, act_min, act_max)`,
    or `y = wq[id]` for an embedding.

    Args:
        op: "dense", "conv2d", "depthwise_conv2d" or "embedding".
        weight: kernel in Keras order, `[in, out]`, `[kh, kw, in / groups, out]`,
            `[kh, kw, channels, multiplier]` or `[rows, out]`; the channel axis is the last one. A
            depthwise kernel may have either of its last two axes as channel axis, or come as
            `[kh, kw, out]` when each output has parameters of its own. The channel axis of an
            embedding is 0 (parameters for each row), or 1.
        grid: how the input is quantized; `FloatGrid()` for an embedding, whose input is ids.
        bias: (out,) float32 or None. An embedding has neither bias nor multiplier nor clamp.
        multiplier: (out,) float32, a folded batch norm, or None for ones.
        strides, dilations: rows, columns.
        padding: "valid", "same" or `((top, bottom), (left, right))`.
        groups: groups of a convolution; of a depthwise one its input channels (0 to derive it
            from a kernel of rank 4).
        act_min, act_max: output clamp, infinite if there is none.
        input_dilations: distance of two input pixels: 2 puts a row (column) of zeros between two,
            which add exactly 0, as padding does. Padding counts from the widened image, and is
            not "same" then. Transposed convolutions are made of it.

    Raises:
        ValueError: if the parts do not fit each other.
    """

    op: str
    weight: PackedTensor
    grid: InputGrid
    bias: np.ndarray | None = None
    multiplier: np.ndarray | None = None
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    padding: Padding = "valid"
    groups: int = 0
    act_min: float = -math.inf
    act_max: float = math.inf
    input_dilations: tuple[int, int] = (1, 1)

    def __post_init__(self):
        if self.op not in OPS:
            raise self.error(f"op among {OPS}", self.op)
        shape = self.weight.shape
        if len(shape) not in _RANKS[self.op] or min(shape) < 1:
            ranks = " or ".join(map(str, _RANKS[self.op]))
            raise self.error(f"a kernel of rank {ranks} without empty axes", f"shape {shape}")
        self._check_channel_axis()
        self._check_groups()
        self._check_window()
        self._check_embedding()
        for name in ("bias", "multiplier"):
            value = getattr(self, name)
            if value is not None and np.shape(value) != (self.out_channels,):
                raise self.error(f"{name} of shape ({self.out_channels},)", np.shape(value))
        if not self.act_min <= self.act_max:
            raise self.error("act_min <= act_max", (self.act_min, self.act_max))
        self._check_codes()

    @property
    def name(self) -> str:
        """Path of the layer."""
        return self.weight.name

    @property
    def kernel_size(self) -> tuple[int, int]:
        """Rows and columns of the kernel, (1, 1) if it has none."""
        return tuple(self.weight.shape[:2]) if self._is_windowed else (1, 1)

    @property
    def in_channels(self) -> int:
        """Input channels of one group; the number of ids of an embedding."""
        return 1 if self.op == "depthwise_conv2d" else int(self.weight.shape[-2])

    @property
    def out_channels(self) -> int:
        """Output channels, O."""
        axes = self.weight.shape[2:] if self.op == "depthwise_conv2d" else self.weight.shape[-1:]
        return int(np.prod(axes))

    @property
    def row_size(self) -> int:
        """Elements of one row of the blob, K: those that feed one output channel."""
        return math.prod(self.weight.shape) // self.row_count

    @property
    def row_count(self) -> int:
        """Rows of the blob: one for each output channel, or each channel of an embedding."""
        if self.op == "embedding":
            return int(self.weight.shape[self.weight.channel_axis])
        return self.out_channels

    def rows(self, values: np.ndarray) -> np.ndarray:
        """Kernel-shaped `values` as the rows of the blob, (row_count, K)."""
        if self.op == "embedding":
            return np.moveaxis(values, self.weight.channel_axis, 0)
        return values.reshape(-1, self.out_channels).T

    def spread(self, per_channel: np.ndarray) -> np.ndarray:
        """(..., 1) or (..., C) parameters of the channel axis as (..., 1) or (..., row_count)."""
        if per_channel.shape[-1] in (1, self.row_count):
            return per_channel
        shape = self.weight.shape
        if self.weight.channel_axis % len(shape) == 2:
            return np.repeat(per_channel, shape[3], axis=-1)
        return np.tile(per_channel, shape[2])

    def error(self, expected: str, got: Any) -> ValueError:
        """A `ValueError` that names the layer, what was expected and what came."""
        return ValueError(f"layer '{self.name}': expected {expected}, got {got}")

    def _check_channel_axis(self):
        rank = len(self.weight.shape)
        axis = self.weight.channel_axis % rank
        allowed = (rank - 1,)
        if self.op == "embedding" or (self.op == "depthwise_conv2d" and rank == 4):
            allowed = (rank - 2, rank - 1)
        if axis not in allowed:
            raise self.error(f"channel axis among {allowed}", self.weight.channel_axis)
        if np.shape(self.weight.bits) != (self.weight.shape[axis],):
            raise self.error(f"bits of shape ({self.weight.shape[axis]},)", self.weight.bits.shape)

    def _check_groups(self):
        groups = self.groups
        if groups == 0:
            depthwise = self.op == "depthwise_conv2d"
            if depthwise and len(self.weight.shape) == 3:
                raise self.error("groups given with a depthwise kernel of rank 3", groups)
            groups = int(self.weight.shape[2]) if depthwise else 1
            object.__setattr__(self, "groups", groups)
        if groups < 1 or self.out_channels % groups or not (self._is_windowed or groups == 1):
            raise self.error(f"groups that divide {self.out_channels} outputs", groups)
        channels = self.weight.shape[2] if len(self.weight.shape) == 4 else groups
        if self.op == "depthwise_conv2d" and groups != channels:
            raise self.error(f"groups {channels}, the input channels", groups)

    @property
    def _is_windowed(self) -> bool:
        return self.op in ("conv2d", "depthwise_conv2d")

    def _check_window(self):
        if max(self.kernel_size) > MAX_WINDOW:
            raise self.error(f"kernel sizes up to {MAX_WINDOW}", self.kernel_size)
        for name in ("strides", "dilations", "input_dilations"):
            value = getattr(self, name)
            if len(value) != 2 or not 1 <= min(value) <= max(value) <= MAX_WINDOW:
                raise self.error(f"two positive {name} up to {MAX_WINDOW}", value)
            if tuple(value) != (1, 1) and not self._is_windowed:
                raise self.error(f"{name} (1, 1) for {self.op}", value)
        if self.padding != "valid" and not self._is_windowed:
            raise self.error(f"padding 'valid' for {self.op}", self.padding)
        if self.padding == "same" and max(self.input_dilations) > 1:
            raise self.error("'valid' or explicit padding with input_dilations", self.padding)
        if self.padding in ("valid", "same"):
            return
        pads = np.asarray(self.padding) if not isinstance(self.padding, str) else np.zeros(0)
        whole = pads.shape == (2, 2) and pads.dtype.kind in "iu"
        if not whole or pads.min() < 0 or pads.max() > MAX_WINDOW:
            expected = f"padding 'valid', 'same' or ((t, b), (l, r)) of 0 to {MAX_WINDOW}"
            raise self.error(expected, self.padding)

    def _check_embedding(self):
        if self.op != "embedding":
            return
        if self.grid != FloatGrid():
            raise self.error("FloatGrid() for an embedding", self.grid)
        if (self.act_min, self.act_max) != (-math.inf, math.inf):
            raise self.error("no clamp for an embedding", (self.act_min, self.act_max))
        for name in ("bias", "multiplier"):
            if getattr(self, name) is not None:
                raise self.error(f"no {name} for an embedding", getattr(self, name))

    def _check_codes(self):
        encoding, bits = self.weight.encoding, np.asarray(self.weight.bits)
        if isinstance(encoding, Floats):
            if not np.isin(bits, (0, FLOAT_BITS)).all():
                raise self.error(f"bits of floats 0 or {FLOAT_BITS}", bits)
            return
        if bits.min() < 0 or bits.max() > 16:
            raise self.error("bits in [0, 16]", bits)
        codes = np.moveaxis(np.asarray(self.weight.codes, np.int64), self.weight.channel_axis, -1)
        if (codes < 0).any() or (codes >= 2**bits).any():
            raise self.error("codes below 2**bits in every channel", f"{codes.max()}")
        if isinstance(encoding, Planes | Table) and len(np.unique(bits[bits > 0])) > 1:
            raise self.error("one width for all channels of planes or a table", bits)
        if isinstance(encoding, Table) and codes.max() >= len(encoding.levels):
            raise self.error(f"codes below {len(encoding.levels)} levels", codes.max())
        if isinstance(encoding, Planes) and bits.max() not in (0, len(encoding.plane_scale)):
            raise self.error(f"{bits.max()} planes", len(encoding.plane_scale))
