"""Inputs that a file is verified with: the user's, and random ones in their range."""

from __future__ import annotations

import keras
import numpy as np

from tflite_export.graph import Graph, Ref

FREE_AXIS = 32
"""Elements of a random input along an axis that the model leaves open."""


def given_inputs(model: keras.Model, sample, name: str = "sample") -> list[np.ndarray]:
    """A sample as one array for each input of the model, in the inputs' types.

    Args:
        sample: an array, or a list (tuple, dictionary) of them in the structure of the inputs.
        name: what errors call it.

    Raises:
        ValueError: if they do not fit the inputs, or have NaN or inf in them.
    """
    wanted = keras.tree.flatten(model.inputs)
    given = [sample] if hasattr(sample, "shape") else keras.tree.flatten(sample)
    try:
        arrays = [np.asarray(a) for a in given]
        numbers = all(a.dtype.kind in "fiub" for a in arrays)
    except (TypeError, ValueError):
        numbers = False
    if not numbers:
        raise ValueError(f"{name}: expected arrays of numbers, got {type(sample)}")
    if len(arrays) != len(wanted):
        raise ValueError(f"{name}: expected {len(wanted)} inputs, got {len(arrays)}")
    for a, tensor in zip(arrays, wanted, strict=True):
        _check_shape(a, tensor, name)
        if not np.isfinite(a).all():
            raise ValueError(f"{name}: expected finite sample inputs, got NaN or inf")
    if len({len(a) for a in arrays}) > 1:
        raise ValueError(
            f"{name}: expected as many samples of each input, got {[len(a) for a in arrays]}"
        )
    return [a.astype(t.dtype) for a, t in zip(arrays, wanted, strict=True)]


def _check_shape(a: np.ndarray, tensor, name: str) -> None:
    shape = tuple(tensor.shape[1:])
    fits = a.ndim == len(shape) + 1 and all(
        n in (None, m) for n, m in zip(shape, a.shape[1:], strict=True)
    )
    if not fits or not len(a):
        axes = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(
            f"{name}, input '{tensor.name}': expected shape (samples, {axes}), got {a.shape}"
        )


def random_inputs(
    model: keras.Model, graph: Graph, count: int, like: list[np.ndarray] | None = None
) -> list[np.ndarray]:
    """The same random inputs each time, in the types of the model's inputs.

    Ids of embeddings are drawn from all rows. Other inputs are even in the range of `like`, of
    the same shape; without it they are normal, or whole numbers from 0 to 127.
    """
    generator = np.random.default_rng(0)
    limits = id_limits(graph)
    drawn = []
    for index, tensor in enumerate(keras.tree.flatten(model.inputs)):
        shape = [n or FREE_AXIS for n in tensor.shape[1:]]
        known = None if like is None else like[index]
        if known is not None:
            shape = known.shape[1:]
        limit = limits.get(graph.inputs[index])
        values = _draw(generator, (count, *shape), np.dtype(tensor.dtype), known, limit)
        drawn.append(values.astype(tensor.dtype))
    return drawn


def _draw(generator, shape, dtype: np.dtype, known, limit: int | None) -> np.ndarray:
    if limit is not None:
        return generator.integers(0, limit, shape)
    whole = dtype.kind in "iub"
    if known is None and not whole:
        return generator.standard_normal(shape)
    default = (0, 1) if dtype.kind == "b" else (0, 127)
    low, high = default if known is None else (known.min(), known.max())
    if whole:
        return generator.integers(int(low), int(high) + 1, shape)
    return generator.uniform(float(low), float(high), shape)


def id_limits(graph: Graph) -> dict[Ref, int]:
    """For each input that embeddings read, possibly through other calls: their fewest rows."""
    sources: dict[Ref, set[Ref]] = {ref: {ref} for ref in graph.inputs}
    limits: dict[Ref, int] = {}
    for call in graph.calls:
        leaves = keras.tree.flatten((call.args, call.kwargs))
        read = set().union(*(sources.get(leaf, set()) for leaf in leaves if isinstance(leaf, Ref)))
        if isinstance(call.layer, keras.layers.Embedding):
            rows = int(call.layer.input_dim)
            limits |= {ref: min(rows, limits.get(ref, rows)) for ref in read}
            read = set()  # what comes out is no id
        for ref in keras.tree.flatten(call.outputs):
            sources[ref] = read
    return limits


def whole_batches(inputs: list[np.ndarray], batch: int | None) -> list[np.ndarray]:
    """The inputs repeated to a multiple of the batch that a file was made for."""
    if batch is None:
        return inputs
    count = -(-len(inputs[0]) // batch) * batch
    return [np.resize(a, (count, *a.shape[1:])) for a in inputs]
