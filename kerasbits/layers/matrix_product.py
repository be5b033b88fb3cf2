"""Einsum equations that are matrix products: which axes go where."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

_SIDE = r"((?:\.\.\.)?[a-zA-Z]+(?:\.\.\.)?)"
_ELLIPSIS = "."  # a label for all axes of `...` while the rank of the input is unknown
_FIRST_FREE = 0x3B1  # Greek letters, which no equation has, stand for the axes of `...`


@dataclasses.dataclass(frozen=True)
class MatrixProduct:
    """An einsum equation `inputs,kernel->outputs` as a product of matrices.

    The input is brought to `[kept..., contracted...]`, the kernel to `[contracted..., produced...]`
    and their product `[kept..., produced...]` to the order of the output.

    Args:
        inputs, kernel, outputs: labels of the axes.
        sizes: of the axes by label; None where unknown.

    Raises:
        ValueError: not a matrix product, with the reason.
    """

    inputs: str
    kernel: str
    outputs: str
    sizes: Mapping[str, int | None] = dataclasses.field(default_factory=dict)

    @classmethod
    def parse(cls, equation: str, rank: int | None = None) -> MatrixProduct:
        """From the text; `rank` of the input gives each axis of `...` a label of its own."""
        found = re.fullmatch(f"{_SIDE},([a-zA-Z]+)->{_SIDE}", equation)
        if not found:
            raise ValueError(f"expected an equation like 'abc,cd->abd', got '{equation}'")
        inputs, kernel, outputs = (s.replace("...", _ELLIPSIS) for s in found.groups())
        if rank is not None and _ELLIPSIS in inputs:
            count = rank - len(inputs) + 1
            elided = "".join(chr(_FIRST_FREE + i) for i in range(count))
            inputs, outputs = (s.replace(_ELLIPSIS, elided) for s in (inputs, outputs))
        return cls(inputs, kernel, outputs)

    def __post_init__(self):
        x, w, y = (set(labels) for labels in (self.inputs, self.kernel, self.outputs))
        if len(x) + len(w) + len(y) < len(self.inputs + self.kernel + self.outputs):
            raise self._error("each label once in a tensor")
        if shared := x & w & y:
            raise self._error(f"no label in all three tensors, got {sorted(shared)}")
        if alone := x ^ w ^ y:
            raise self._error(f"each label in two tensors, got {sorted(alone)} in one")
        if not self.contracted:
            raise self._error("a label of the input to sum over")
        if not self.kept or self.inputs[0] != self.outputs[0]:
            raise self._error("the first label, the batch, in its place in the output")

    def _error(self, expected: str) -> ValueError:
        equation = f"{self.inputs},{self.kernel}->{self.outputs}".replace(_ELLIPSIS, "...")
        return ValueError(f"expected a matrix product: {expected} (equation '{equation}')")

    @property
    def kept(self) -> str:
        """Labels of the input that the output has, in the order of the output."""
        return "".join(c for c in self.outputs if c in self.inputs)

    @property
    def contracted(self) -> str:
        """Labels that are summed over, in the order of the input."""
        return "".join(c for c in self.inputs if c in self.kernel)

    @property
    def produced(self) -> str:
        """Labels that the kernel adds, in the order of the output."""
        return "".join(c for c in self.outputs if c in self.kernel)

    def shape(self, labels: str) -> tuple[int | None, ...]:
        """Sizes of axes."""
        return tuple(self.sizes[c] for c in labels)

    def size(self, labels: str) -> int:
        """Product of the sizes of axes."""
        return math.prod(self.shape(labels))

    @property
    def kernel_order(self) -> tuple[int, ...]:
        """Axes of the kernel in the order of the matrix."""
        return order(self.kernel, self.contracted + self.produced)


def order(labels: str, wanted: str) -> tuple[int, ...]:
    """The permutation for `transpose` that brings axes `labels` into the order `wanted`."""
    return tuple(labels.index(c) for c in wanted)


def to_matrix(kernel, axes: tuple[int, ...], shape: tuple[int, ...], backend):
    """A tensor with its axes in another order, then in another shape.

    Args:
        kernel: array or tensor.
        axes: permutation, as `transpose` takes it.
        shape: of the result.
        backend: `numpy` or `keras.ops`.
    """
    return backend.reshape(backend.transpose(kernel, axes), shape)


def from_matrix(matrix, axes: tuple[int, ...], shape: tuple[int, ...], backend):
    """The inverse of `to_matrix`; `shape` is that of the kernel."""
    back = tuple(axes.index(i) for i in range(len(axes)))
    return backend.transpose(backend.reshape(matrix, tuple(shape[i] for i in axes)), back)
