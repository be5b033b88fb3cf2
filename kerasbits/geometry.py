"""`Geometry`: how an exported kernel is applied to an input. The common language of layers and
exporters, beside `packed`."""

from __future__ import annotations

import dataclasses

Pair = tuple[int, int]
Padding = str | tuple[Pair, Pair]


@dataclasses.dataclass(frozen=True)
class Geometry:
    """What a layer does with its kernel.

    Args:
        op: "dense" with a kernel `[in, out]`, "conv2d" with `[kh, kw, in / groups, out]`,
            "depthwise_conv2d" with `[kh, kw, out]`, "embedding" with `[rows, out]`.
        strides, dilations: rows, columns.
        padding: "valid", "same" or `((top, bottom), (left, right))`.
        groups: groups of a convolution; the input channels of a depthwise one.
        input_dilations: distance of two input pixels, with zeros between them. A transposed
            convolution of stride s is a convolution of stride 1 whose input is dilated by s.
    """

    op: str
    strides: Pair = (1, 1)
    dilations: Pair = (1, 1)
    padding: Padding = "valid"
    groups: int = 1
    input_dilations: Pair = (1, 1)
