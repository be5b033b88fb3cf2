"""Embeddings: rows of a stored table, looked up and dequantized."""

from __future__ import annotations

import numpy as np

from tflite_export.layer import PackedLayer
from tflite_export.stock.graph import StockGraph
from tflite_export.stock.kernels import StockKernel, Term
from tflite_export.stock.operators import add_kernel

_LOOKED_UP = ("INT8", "INT16")
"""Types whose rows every runtime looks up."""


def add_embedding(
    graph: StockGraph, path: str, layer: PackedLayer, kernel: StockKernel, ids: int, output: int
) -> None:
    """Add the look-up of rows.

    INT8 and INT16 rows are looked up as integers and then dequantized, so the table stays small in
    memory. Tables of narrower types are dequantized as a whole, once.
    """
    if any(term.container not in _LOOKED_UP for term in kernel.terms) or not kernel.terms:
        graph.add("GATHER", [add_kernel(graph, path, layer, kernel), ids], output)
        return
    total = None
    for term in kernel.terms:
        rows = _rows(graph, path, kernel, term, ids, graph.shape(output))
        total = rows if total is None else graph.add("ADD", [total, rows])
    if kernel.offset is not None:
        graph.add("ADD", [total, _parameter(graph, kernel, kernel.offset, ids)])
    graph.end_in(output)


def _rows(
    graph: StockGraph, path: str, kernel: StockKernel, term: Term, ids: int, shape: list[int]
) -> int:
    """Dequantized rows of one constant."""
    several = term.scale.size > 1
    parameters = (np.ones(1), np.zeros(1), 0) if several else (term.scale, term.zero, 0)
    table = graph.constant(term.integers, term.container, parameters, path)
    rows = graph.tensor(shape, term.container, parameters)
    version, of_type = (2, 2) if term.container == "INT8" else (4, 3)
    graph.add("GATHER", [table, ids], rows, version)
    values = graph.add("DEQUANTIZE", [rows], version=of_type)
    if not several:
        return values
    if term.zero.any():
        values = graph.add("SUB", [values, _parameter(graph, kernel, term.zero, ids)])
    return graph.add("MUL", [values, _parameter(graph, kernel, term.scale, ids)])


def _parameter(graph: StockGraph, kernel: StockKernel, values: np.ndarray, ids: int) -> int:
    """Numbers of the channels as they meet rows: those of each row if rows are the channels."""
    if values.size == 1:
        return graph.number(float(values[0]))
    if kernel.axis == 1:
        return graph.constant(values, "FLOAT32")
    column = graph.constant(values.reshape(-1, 1), "FLOAT32")
    return graph.add("GATHER", [column, ids], graph.tensor([*graph.shape(ids), 1]))
