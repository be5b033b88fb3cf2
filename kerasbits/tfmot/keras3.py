"""The Keras 3 twin of a tf_keras model: for export, and as a way out of tf_keras."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from kerasbits.tfmot import keras3_operations
from kerasbits.tfmot.keras3_check import compare
from kerasbits.tfmot.keras3_graph import (
    arguments,
    has_graph,
    ids,
    needed_calls,
    results,
    warn_of_losses,
)
from kerasbits.tfmot.keras3_layers import keras3_arguments, keras3_name, translated
from kerasbits.tfmot.keras3_quantized import copy_states, is_quantized, quantized_layer

OPERATIONS = ("TFOpLambda", "SlicingOpLambda")
"""Layers that tf_keras makes of TensorFlow functions."""


def to_keras3(
    model: tf_keras.Model,
    classes: Mapping[type, Any] | None = None,
    sample=None,
    verify: bool = True,
) -> keras.Model:
    """The Keras 3 model of the same layers, weights and quantizer states as a tf_keras model.

    Layers keep their paths (a `/` in a name becomes `_`). Quantized layers become `QuantConv2D`
    and the like, with all their state: one continues to train, adjust or freeze the twin, and it
    gives the same codes, report and file. It is not compiled. What was given to
    `model.add_loss(tensor)` stays behind, with a warning.

    Args:
        model: Sequential or functional, built, plain or quantized by `kerasbits.tfmot`. It is not
            changed.
        classes: for layers of your own, `{tf_keras class: Keras 3 class}`; instead of a class a
            function that makes the layer of its configuration will do.
        sample: inputs to compare the two models with, an array or a structure of arrays as the
            model takes it; random ones if None.
        verify: compare each layer, and the outputs, with those of the given model.

    Raises:
        ValueError: another kind of model, a layer that Keras 3 does not have, or one that computes
            something else there; the message names the layer.

    Example:
        twin = to_keras3(tf_keras.models.load_model("m.h5"))
        twin.save("m.keras")
    """
    check_model(model)
    twins = Twins(classes or {})
    twin = twins.model(model)
    for old, new in twins.pairs():
        _copy_weights(old, new)
    if verify:
        compare(model, twin, twins.of, sample)
    return twin


def check_model(model) -> None:
    """Whether a model can have a twin.

    Raises:
        ValueError: no tf_keras model, one without a graph, or without weights yet.
    """
    if isinstance(model, keras.Model):
        raise ValueError(f"model '{model.name}': expected a tf_keras model, got a Keras 3 model")
    if not isinstance(model, tf_keras.Model):
        raise ValueError(f"expected a tf_keras model, got {type(model).__name__}")
    if not has_graph(model):
        raise ValueError(
            f"model '{model.name}': expected a Sequential or functional model, got "
            f"{type(model).__name__}, whose layers are called by its own code"
        )
    if not model.built or not getattr(model, "_nodes_by_depth", None):
        raise ValueError(
            f"model '{model.name}': expected a built model, got one without an input shape; "
            "give it an Input layer"
        )


class Twins:
    """The Keras 3 layer of each tf_keras layer met so far. A shared layer has one twin."""

    def __init__(self, classes: Mapping[type, Any]):
        self.classes = classes
        self._pairs: dict[int, tuple[Any, Any]] = {}
        self._operations: dict[int, Any] = {}  # those that have their final names
        self._uses: collections.Counter[str] = collections.Counter()  # of names for operations

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        """Each layer that is no model, and its twin."""
        return ((old, new) for old, new in self._pairs.values() if not has_graph(old))

    def of(self, layer) -> Any:
        """The twin of a layer: a layer, or a function for an operation."""
        if id(layer) not in self._pairs:
            self._pairs[id(layer)] = (layer, self._new(layer))
        return self._pairs[id(layer)][1]

    def _new(self, layer) -> Any:
        if has_graph(layer):
            return self.model(layer)
        if type(layer).__name__ in OPERATIONS:
            return lambda *args, **kwargs: keras3_operations.run(layer, args, kwargs)
        if is_quantized(layer):
            return quantized_layer(layer)
        return translated(layer, self.classes)

    def model(self, model: tf_keras.Model) -> keras.Model:
        """The twin of a model, with the weights that its layers start with."""
        name = keras3_name(model.name)
        if isinstance(model, tf_keras.Sequential):
            layers = [self.of(layer) for layer in model.layers]
            return keras.Sequential([_input(model.inputs[0]), *layers], name=name)
        warn_of_losses(model)
        inputs = tf.nest.map_structure(_input, model._nested_inputs)
        values = dict(zip(ids(model._nested_inputs), tf.nest.flatten(inputs), strict=True))
        for node in needed_calls(model):
            args, kwargs = arguments(node, values)
            values.update(results(node, self._call(node.layer, args, kwargs)))
        outputs = tf.nest.map_structure(lambda t: values[id(t)], model._nested_outputs)
        return keras.Model(inputs, outputs, name=name)

    def _call(self, layer, args: tuple, kwargs: dict):
        twin = self.of(layer)
        if type(layer).__name__ in OPERATIONS:
            return self._named(twin(*args, **kwargs), layer.name)
        if kwargs.get("training"):
            raise ValueError(
                f"layer '{layer.name}': expected a call that leaves training open, got "
                "training=True, which Keras 3 overrides in inference"
            )
        args, kwargs = keras3_arguments(layer, args, kwargs)
        try:
            return twin(*args, **kwargs)
        except Exception as error:  # whatever a layer makes of arguments that it does not know
            raise ValueError(
                f"layer '{layer.name}' ({type(layer).__name__}): Keras 3 cannot call it as "
                f"tf_keras does: {error}"
            ) from error

    def _named(self, result, name: str):
        """The result of operations, which get the name of the tf_keras layer.

        Keras gives them names by counting, which might be those of layers.
        """
        queue = keras.tree.flatten(result)
        while queue:
            tensor = queue.pop(0)
            if not isinstance(tensor, keras.KerasTensor):
                continue
            operation = tensor._keras_history.operation
            if isinstance(operation, keras.layers.Layer) or id(operation) in self._operations:
                continue
            count = self._uses[name]
            operation.name = keras3_name(f"{name}.{count}" if count else name)
            self._uses[name] += 1
            self._operations[id(operation)] = operation
            queue += keras.tree.flatten(operation.input)
        return result


def _input(tensor) -> keras.KerasTensor:
    """The Keras 3 input for one of tf_keras, of the same name."""
    layer = tensor._keras_history.layer
    if getattr(layer, "sparse", False) or getattr(layer, "ragged", False):
        raise ValueError(f"layer '{layer.name}': expected a dense input, got sparse or ragged")
    return keras.Input(
        batch_shape=tuple(tensor.shape), dtype=tensor.dtype.name, name=keras3_name(layer.name)
    )


def _copy_weights(old, new) -> None:
    """Give a twin the weights of its layer, and the states of its quantizers."""
    if is_quantized(old):
        copy_states(old, new)
    elif old.weights:
        values = _in_order(old, new)
        new.set_weights(values)
        if hasattr(new, "finalize_state"):  # of preprocessing layers
            new.finalize_state()


def _in_order(old, new) -> list[np.ndarray]:
    """The values of a layer in the order of its twin's weights: by name, or as they come."""
    values = {w.name.rpartition("/")[2].partition(":")[0]: w.numpy() for w in old.weights}
    names = [w.name for w in new.weights]
    if len(values) == len(old.weights) and sorted(names) == sorted(values):
        ordered = [values[name] for name in names]
    else:
        ordered = [w.numpy() for w in old.weights]
    if [v.shape for v in ordered] != [tuple(w.shape) for w in new.weights]:
        raise ValueError(
            f"layer '{old.name}' ({type(old).__name__}): expected weights of shapes "
            f"{[tuple(w.shape) for w in new.weights]} as in Keras 3, got "
            f"{[v.shape for v in ordered]}"
        )
    return ordered
