"""`Part`: one operator of a file, as a file of its own."""

from __future__ import annotations

import dataclasses

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Part:
    """One operator of a file.

    Args:
        name: path of a quantized layer, or the name of the operator's output.
        op: what it does.
        input, output: shapes of its first input (empty without one) and output.
        macs: multiplications, if it is a layer with a kernel, else 0.
        data: a file that holds only this, or None if it makes no sense alone (loops, variables).
    """

    name: str
    op: str
    input: Shape
    output: Shape
    macs: int
    data: bytes | None
