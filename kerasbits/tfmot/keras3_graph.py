"""The calls of a functional tf_keras model, for those who repeat them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras

LOSSES = ("AddLoss", "AddMetric")
"""Layers that tf_keras makes of `model.add_loss(tensor)` and `model.add_metric(tensor)`."""


def has_graph(layer: Any) -> bool:
    """Whether a layer is a Sequential or functional model that has no `call` of its own."""
    if isinstance(layer, tf_keras.Sequential):
        return type(layer).call is tf_keras.Sequential.call
    if not isinstance(layer, tf_keras.Model):
        return False
    owner = next(c for c in type(layer).__mro__ if "call" in vars(c))
    return owner.__name__ == "Functional"


def needed_calls(model: tf_keras.Model) -> list:
    """The calls (`Node`s of tf_keras) that the outputs need, in the order of execution.

    Others belong to losses and metrics.
    """
    needed, given = set(ids(model._nested_outputs)), set(ids(model._nested_inputs))
    found = []
    for depth in sorted(model._nodes_by_depth):  # from the outputs back
        for node in model._nodes_by_depth[depth]:
            outputs = set(ids(node.outputs))
            if not node.is_input and needed & outputs - given:
                needed |= {id(tensor) for tensor in node.keras_inputs}
                found.append(node)
    return found[::-1]


def warn_of_losses(model: tf_keras.Model) -> None:
    """Say which layers of losses and metrics no other model will get."""
    for layer in model.layers:
        if type(layer).__name__ in LOSSES:
            warnings.warn(
                f"model '{model.name}', layer '{layer.name}': what was given to add_loss or "
                "add_metric is left out of the Keras 3 model",
                stacklevel=2,
            )


def arguments(node, values: Mapping[int, Any]) -> tuple[tuple, dict]:
    """Arguments of a call, its symbolic tensors replaced by `values` of their ids."""

    def fill(leaf):
        if isinstance(leaf, tf.Variable | tf.Tensor):
            return leaf.numpy()
        return values.get(id(leaf), leaf)

    args, kwargs = tf.nest.map_structure(fill, (tuple(node.call_args), dict(node.call_kwargs)))
    return args, {name: value for name, value in kwargs.items() if value is not None}


def results(node, result) -> dict[int, Any]:
    """What a repeated call gave in the place of each output, by the output's id.

    In the place of one tensor there may be several numbers: the sizes of a shape.
    """
    flat = tf.nest.flatten(result) if tf.nest.is_nested(node.outputs) else [result]
    return dict(zip(ids(node.outputs), flat, strict=True))


def ids(structure) -> list[int]:
    """Of the tensors in a structure."""
    return [id(tensor) for tensor in tf.nest.flatten(structure)]


def input_structure(model: tf_keras.Model) -> Any:
    """The symbolic inputs of a model as it takes them."""
    return model.inputs[0] if isinstance(model, tf_keras.Sequential) else model._nested_inputs


def id_limits(model: tf_keras.Model) -> dict[int, int]:
    """For each input that embeddings read, by the id of its tensor: their fewest rows."""
    limits: dict[int, int] = {}

    def visit(layer, sources: list[set[int]]) -> list[set[int]]:
        """The inputs that reach each output of a layer, from those that reach its inputs."""
        merged = set().union(*sources)
        inner = getattr(layer, "layer", layer)  # of a wrapper
        if isinstance(inner, tf_keras.layers.Embedding):
            limits.update({i: min(inner.input_dim, limits.get(i, inner.input_dim)) for i in merged})
            return [set()]  # what comes out is no id
        if isinstance(layer, tf_keras.Sequential):
            for inner in layer.layers:
                sources = visit(inner, sources)
            return sources
        if not has_graph(layer):
            return [merged]
        reach = dict(zip(ids(layer._nested_inputs), sources, strict=True))
        for node in needed_calls(layer):
            found = visit(node.layer, [reach.get(id(t), set()) for t in node.keras_inputs])
            outputs = ids(node.outputs)
            found = found if len(found) == len(outputs) else [set().union(*found)] * len(outputs)
            reach.update(zip(outputs, found, strict=True))
        return [reach[i] for i in ids(layer._nested_outputs)]

    inputs = ids(input_structure(model))
    visit(model, [{i} for i in inputs])
    return limits
