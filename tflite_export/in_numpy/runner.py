"""Run a .kbits file in NumPy: what runs where the C library is missing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tflite_export.in_numpy.graph import Node, Tensor, read_graph
from tflite_export.in_numpy.layout import MOVES, cast
from tflite_export.in_numpy.op import NumpyOp
from tflite_export.in_numpy.operators import ARITHMETIC
from tflite_export.in_numpy.shapes import check_nodes


class NumpyRunner:
    """A .kbits file, run by NumPy. Agrees with the C runtime as docs/kbits_format.md says.

    Args:
        data: bytes of the file.
        keep_tensors: keep all values of the last run, so that `tensor` can read them.

    Raises:
        ValueError: if the file is corrupt or not as docs/kbits_format.md says.
    """

    def __init__(self, data: bytes, keep_tensors: bool = False):
        self._graph, self._keeps = read_graph(data), keep_tensors
        self._ops = []
        for index, blob in enumerate(self._graph.blobs):
            try:
                self._ops.append(NumpyOp(blob))
            except ValueError as error:
                raise ValueError(f"blob {index}: {error}") from None
        check_nodes(self._graph, self._packed_shape)
        self._values: dict[int, np.ndarray] = {}
        self._last_uses = self._find_last_uses()

    @property
    def inputs(self) -> list[tuple[str, tuple[int, ...], np.dtype]]:
        """Name, shape and type of each input."""
        return self._ends(self._graph.inputs)

    @property
    def outputs(self) -> list[tuple[str, tuple[int, ...], np.dtype]]:
        """Name, shape and type of each output."""
        return self._ends(self._graph.outputs)

    @property
    def batch(self) -> int | None:
        """The batch size that the file was made for; None if no input has a batch axis."""
        return next((shape[0] for _, shape, _ in self.inputs if shape), None)

    @property
    def packed_layers(self) -> tuple[str, ...]:
        """Paths of the quantized layers."""
        return tuple(path for path in self._graph.paths if path)

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Outputs for one batch.

        Raises:
            ValueError: inputs that do not fit the file, or ids outside of an embedding.
        """
        values = self._values = {}
        self._put_inputs(arrays)
        for index, tensor in enumerate(self._graph.tensors):
            if tensor.constant is not None:
                values[index] = tensor.constant
        # Infinite and undefined values pass through as in C, without warnings.
        with np.errstate(all="ignore"):
            for node in self._graph.nodes:
                values[node.output] = self._computed(node, [values[i] for i in node.inputs])
                for index in () if self._keeps else self._last_uses[node.index]:
                    del values[index]
        return [values[index].copy() for index in self._graph.outputs]

    def repeated(self, arrays: list[np.ndarray]) -> Callable[[], object]:
        """A function that runs it on these inputs once more."""
        return lambda: self.run(arrays)

    def tensor(self, index: int) -> np.ndarray:
        """A tensor of the last run, by its index in the file.

        Raises:
            ValueError: if there is none, or it was not kept.
        """
        if index not in self._values:
            raise ValueError(f"expected a tensor that the last run kept, got {index}")
        return self._values[index]

    def close(self) -> None:
        """Release the memory of the layers."""
        for op in self._ops:
            op.close()

    def __enter__(self) -> NumpyRunner:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def _ends(self, indices: tuple[int, ...]) -> list[tuple[str, tuple[int, ...], np.dtype]]:
        tensors = [self._graph.tensors[index] for index in indices]
        return [(tensor.name, tensor.shape, np.dtype(tensor.dtype)) for tensor in tensors]

    def _put_inputs(self, arrays: list[np.ndarray]) -> None:
        if len(arrays) != len(self.inputs):
            raise ValueError(f"expected {len(self.inputs)} inputs, got {len(arrays)}")
        for index, (name, shape, dtype), x in zip(
            self._graph.inputs, self.inputs, arrays, strict=True
        ):
            if np.shape(x) != shape:
                raise ValueError(f"input '{name}': expected shape {shape}, got {np.shape(x)}")
            self._values[index] = np.asarray(x, dtype)

    def _computed(self, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
        output = self._graph.tensors[node.output]
        if node.op == "PACKED":
            try:
                return self._ops[node.blob].run(inputs[0])
            except ValueError as error:
                raise ValueError(f"node {node.index} (PACKED): {error}") from None
        if node.op == "CAST":
            return cast(inputs[0], output.dtype)
        if node.op in MOVES:
            y = MOVES[node.op](node, output.shape, *inputs)
        else:
            y = ARITHMETIC[node.op](node, *inputs)
        return np.asarray(y, output.dtype).reshape(output.shape)

    def _packed_shape(self, node: Node, x: Tensor) -> tuple[int, ...]:
        op = self._ops[node.blob]
        wanted = np.int32 if op.takes_ids else np.float32
        if x.dtype != wanted:
            raise node.error(f"an input of {wanted.__name__}", x.dtype.__name__)
        try:
            return op.output_shape(x.shape)
        except ValueError as error:
            raise ValueError(f"node {node.index} (PACKED): {error}") from None

    def _find_last_uses(self) -> list[list[int]]:
        """For each node, the tensors that nothing needs behind it."""
        last = {node.output: node.index for node in self._graph.nodes}
        last |= {index: node.index for node in self._graph.nodes for index in node.inputs}
        uses = [[] for _ in self._graph.nodes]
        for tensor, node in last.items():
            if tensor not in self._graph.outputs:
                uses[node].append(tensor)
        return uses
