"""Tensors of a file that was run, as the numbers that they mean."""

from __future__ import annotations

import dataclasses

import numpy as np

from tflite_export import flatbuffer
from tflite_export.interpreter import Interpreter


@dataclasses.dataclass(frozen=True)
class FileTensor:
    """A tensor: its values, and for integers the value of a code step and the code of zero."""

    values: np.ndarray
    scale: float | None = None
    zero: int = 0

    def reshaped(self, shape: tuple[int, ...]) -> FileTensor:
        """The same under another shape."""
        return dataclasses.replace(self, values=self.values.reshape(shape))


class Tensors:
    """Runs a file and reads its tensors.

    Args:
        runner: of the file, keeping tensors.
        data: the file, if it may have integer tensors.
        rounded: whether the inputs of layers, as the file knows them, are rounded already.
    """

    def __init__(self, runner: Interpreter, data: bytes | None = None, rounded: bool = False):
        self.runner, self.rounded = runner, rounded
        self._grids: dict[int, tuple[float, int]] = {}
        graph = flatbuffer.read(data).subgraphs[0] if data is not None else None
        for index, tensor in enumerate(graph.tensors if graph else []):
            grid = tensor.quantization
            if grid is not None and grid.scale is not None and len(grid.scale) == 1:
                self._grids[index] = float(grid.scale[0]), int(grid.zeroPoint[0])

    @property
    def batch(self) -> int | None:
        """The batch that the file was made for; None if any will do."""
        return self.runner.batch

    def run(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """Outputs for one batch."""
        return self.runner.run(inputs)

    def get(self, index: int) -> FileTensor:
        """A tensor of the last run."""
        values = self.runner.tensor(index)
        if index not in self._grids:
            return FileTensor(values)
        scale, zero = self._grids[index]
        steps = (values.astype(np.int32) - zero).astype(np.float32)
        return FileTensor(np.float32(scale) * steps, scale, zero)
