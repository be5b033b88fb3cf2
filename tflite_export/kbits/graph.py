"""The graph of a .kbits file while it is put together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from tflite_export import kbits_generated as schema

MAX_RANK = 8
MAX_TENSORS = 2**16 - 1

TYPES = {
    np.dtype(np.float32): schema.Type.FLOAT32,
    np.dtype(np.int32): schema.Type.INT32,
}
"""Types of tensors by their NumPy type."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """A whole graph.

    Args:
        model: for `container.serialize`.
        tensors: index of each tensor in it, by the number it had before.
    """

    model: schema.ModelT
    tensors: dict[int, int]


class KbitsGraph:
    """Tensors, blobs and nodes, in the order in which they are added."""

    def __init__(self):
        self.tensors: list[schema.TensorT] = []
        self.nodes: list[schema.NodeT] = []
        self.blobs: list[schema.BlobT] = []
        self._constants: dict[tuple, int] = {}
        self._float_blobs: dict[bytes, int] = {}

    def tensor(self, shape: Iterable[int], dtype: np.dtype = np.float32, name: str = "") -> int:
        """Add a tensor that a node writes, or an input.

        Raises:
            ValueError: a shape or type that files cannot hold.
        """
        shape = tuple(int(n) for n in shape)
        if len(shape) > MAX_RANK or min(shape, default=1) < 1 or math.prod(shape) >= 2**31:
            raise ValueError(
                f"expected at most {MAX_RANK} axes of at least 1 and fewer than 2^31 elements, "
                f"got shape {shape}"
            )
        if np.dtype(dtype) not in TYPES:
            raise ValueError(f"expected float32 or int32, got {np.dtype(dtype)}")
        tensor = schema.TensorT()
        tensor.shape = np.array(shape, np.int32)
        tensor.type = TYPES[np.dtype(dtype)]
        tensor.name = name or None
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, values: np.ndarray) -> int:
        """Add a constant, or find an equal one."""
        values = np.asarray(values)
        key = (values.shape, values.dtype.str, values.tobytes())
        if key not in self._constants:
            index = self.tensor(values.shape, values.dtype)
            raw = values.astype(values.dtype.newbyteorder("<")).tobytes()
            self.tensors[index].data = np.frombuffer(raw, np.uint8)
            self._constants[key] = index
        return self._constants[key]

    def blob(self, data: bytes, path: str = "") -> int:
        """Add a blob; an equal one of another float layer serves as well."""
        if not path and data in self._float_blobs:
            return self._float_blobs[data]
        blob = schema.BlobT()
        blob.path, blob.data = path or None, np.frombuffer(data, np.uint8)
        self.blobs.append(blob)
        if not path:
            self._float_blobs[data] = len(self.blobs) - 1
        return len(self.blobs) - 1

    def write(
        self,
        op: int,
        inputs: Iterable[int],
        output: int,
        ints: Iterable[int] = (),
        floats: Iterable[float] = (),
        blob: int = 0,
    ) -> None:
        """Add a node that computes the tensor `output`."""
        node = schema.NodeT()
        node.op, node.output, node.blob = op, output, blob
        node.inputs = np.array(list(inputs), np.uint32)
        ints, floats = list(ints), list(floats)
        node.ints = np.array(ints, np.int32) if ints else None
        node.floats = np.array(floats, np.float32) if floats else None
        self.nodes.append(node)

    def compute(
        self,
        op: int,
        inputs: Iterable[int],
        shape: Iterable[int],
        ints: Iterable[int] = (),
        floats: Iterable[float] = (),
        blob: int = 0,
    ) -> int:
        """Add a node and the tensor that it computes, of the type of its first input."""
        inputs = list(inputs)
        output = self.tensor(shape)
        self.tensors[output].type = self.tensors[inputs[0]].type
        self.write(op, inputs, output, ints, floats, blob)
        return output

    def reshaped(self, tensor: int, shape: Iterable[int]) -> int:
        """The tensor itself if it has this shape, else one that a new node reshapes."""
        shape = tuple(int(n) for n in shape)
        if self.shape(tensor) == shape:
            return tensor
        return self.compute(schema.Op.RESHAPE, [tensor], shape)

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Shape of a tensor."""
        return tuple(int(n) for n in self.tensors[tensor].shape)

    def finish(self, inputs: list[int], outputs: list[int]) -> Finished:
        """The graph without what no output needs. Inputs all stay.

        Raises:
            ValueError: if it is too large for a file.
        """
        needed, nodes = set(outputs), []
        for node in reversed(self.nodes):
            if node.output in needed:
                nodes.append(node)
                needed |= {int(i) for i in node.inputs}
        order = sorted(needed | set(inputs))
        if len(order) > MAX_TENSORS or len(nodes) > MAX_TENSORS:
            raise ValueError(f"expected at most {MAX_TENSORS} tensors, got {len(order)}")
        tensors = {old: new for new, old in enumerate(order)}
        kept = sorted({node.blob for node in nodes if node.op == schema.Op.PACKED})
        model = schema.ModelT()
        model.tensors = [self.tensors[i] for i in order]
        model.blobs = [self.blobs[i] for i in kept]
        model.nodes = [_renumbered(node, tensors, kept) for node in reversed(nodes)]
        model.inputs = np.array([tensors[i] for i in inputs], np.uint32)
        model.outputs = np.array([tensors[i] for i in outputs], np.uint32)
        return Finished(model, tensors)


def _renumbered(node: schema.NodeT, tensors: dict[int, int], blobs: list[int]) -> schema.NodeT:
    new = schema.NodeT()
    new.op, new.ints, new.floats = node.op, node.ints, node.floats
    new.inputs = np.array([tensors[int(i)] for i in node.inputs], np.uint32)
    new.output = tensors[node.output]
    new.blob = blobs.index(node.blob) if node.op == schema.Op.PACKED else 0
    return new
