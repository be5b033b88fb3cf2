"""A .kbits file as plain records, checked by docs/kbits_format.md."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from tflite_export.kbits import container
from tflite_export.kbits_generated import ModelT, NodeT, Op, TensorT

MAX_RANK = 8

_TYPES = (np.float32, np.int32)
_NAMES = {number: name for name, number in vars(Op).items() if not name.startswith("_")}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A value of the graph.

    Args:
        shape: of one to eight axes, or none for a scalar.
        dtype: float32 or int32.
        name: "" unless an input or output of the model.
        constant: its values, None unless it is a constant.
    """

    shape: tuple[int, ...]
    dtype: type
    name: str
    constant: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation: its number in the file, its name in the schema, tensors, attributes."""

    index: int
    op: str
    inputs: tuple[int, ...]
    output: int
    ints: tuple[int, ...]
    floats: tuple[float, ...]
    blob: int

    def error(self, expected: str, got: Any) -> ValueError:
        """A ValueError that names the node."""
        return ValueError(f"node {self.index} ({self.op}): expected {expected}, got {got}")


@dataclasses.dataclass(frozen=True)
class Graph:
    """All of a file. `blobs` and `paths` go together; a layer that stayed float has path ""."""

    tensors: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    blobs: tuple[bytes, ...]
    paths: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_graph(data: bytes) -> Graph:
    """The graph of a file. Attributes and shapes of nodes are not looked at here.

    Raises:
        ValueError: if the file is corrupt, or its parts do not refer to each other as they should.
    """
    tree = container.read(data)
    graph = Graph(
        tuple(_tensor(i, tensor) for i, tensor in enumerate(_list(tree.tensors))),
        tuple(_node(i, node) for i, node in enumerate(_list(tree.nodes))),
        tuple(_blob_bytes(i, blob.data) for i, blob in enumerate(_list(tree.blobs))),
        tuple((blob.path or b"").decode() for blob in _list(tree.blobs)),
        _ends(tree, "inputs"),
        _ends(tree, "outputs"),
    )
    _check_order(graph)
    return graph


def _list(items) -> list:
    return [] if items is None else list(items)


def _tensor(index: int, tensor: TensorT) -> Tensor:
    shape = tuple(int(n) for n in _list(tensor.shape))
    if len(shape) > MAX_RANK or min(shape, default=1) < 1 or math.prod(shape) >= 2**31:
        raise ValueError(
            f"tensor {index}: expected at most {MAX_RANK} axes of at least 1 and fewer than 2^31 "
            f"elements, got {shape}"
        )
    if tensor.type >= len(_TYPES):
        raise ValueError(f"tensor {index}: expected type 0 or 1, got {tensor.type}")
    dtype, constant = _TYPES[tensor.type], None
    if tensor.data is not None:
        raw = np.asarray(tensor.data, np.uint8).tobytes()
        if len(raw) != 4 * math.prod(shape):
            raise ValueError(
                f"tensor {index}: expected {4 * math.prod(shape)} bytes of data, got {len(raw)}"
            )
        little = np.dtype(dtype).newbyteorder("<")
        constant = np.frombuffer(raw, little).astype(dtype).reshape(shape)
    return Tensor(shape, dtype, (tensor.name or b"").decode(), constant)


def _node(index: int, node: NodeT) -> Node:
    if node.op not in _NAMES:
        raise ValueError(f"node {index}: expected a known operation, got number {node.op}")
    return Node(
        index,
        _NAMES[node.op],
        tuple(int(i) for i in _list(node.inputs)),
        int(node.output),
        tuple(int(i) for i in _list(node.ints)),
        tuple(float(f) for f in _list(node.floats)),
        int(node.blob),
    )


def _blob_bytes(index: int, data) -> bytes:
    if data is None:
        raise ValueError(f"blob {index}: expected data, got none")
    return np.asarray(data, np.uint8).tobytes()


def _ends(tree: ModelT, name: str) -> tuple[int, ...]:
    ends = tuple(int(i) for i in _list(getattr(tree, name)))
    count = len(_list(tree.tensors))
    if not ends or max(ends) >= count:
        raise ValueError(f"expected {name} among {count} tensors, got {ends}")
    return ends


def _check_order(graph: Graph) -> None:
    """Each tensor comes from one place, and nodes read what is there already."""
    known = {i for i, tensor in enumerate(graph.tensors) if tensor.constant is not None}
    for index in graph.inputs:
        if index in known:
            raise ValueError(f"input {index}: expected neither a constant nor another input")
        known.add(index)
    for node in graph.nodes:
        if node.op == "PACKED" and node.blob >= len(graph.blobs):
            raise node.error(f"a blob among {len(graph.blobs)}", node.blob)
        for index in node.inputs:
            if index not in known:
                raise node.error("inputs that are there before it", f"tensor {index}")
        if node.output in known or node.output >= len(graph.tensors):
            raise node.error("an output that nothing else writes", f"tensor {node.output}")
        known.add(node.output)
    missing = set(range(len(graph.tensors))) - known
    if missing:
        raise ValueError(f"tensor {min(missing)}: expected something that writes it, got nothing")
