"""Compare a tf_keras model with its Keras 3 twin, layer by layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from kerasbits.tfmot.keras3_graph import (
    arguments,
    has_graph,
    id_limits,
    ids,
    input_structure,
    needed_calls,
    results,
)
from kerasbits.tfmot.keras3_layers import keras3_arguments

SAMPLES = 2

FREE_AXIS = 32
"""Elements of a random input along an axis that the model leaves open."""

TOLERANCES = {"float16": 1e-2, "bfloat16": 5e-2, "float32": 1e-4, "float64": 1e-4}
"""Difference of a layer that is allowed, relative to the largest value of its output: that of sums
in another order. What computes something else is further away."""

OUTPUT_TOLERANCE = 0.5
"""Difference of the outputs of a model that is allowed, relative to their size as vectors. Rounding
errors are whole steps behind quantizers, so the outputs only tell whether the layers are joined
in the same way."""


def compare(model: tf_keras.Model, twin: keras.Model, twin_of: Callable, sample=None) -> None:
    """Run a model and its twin on the same inputs.

    Each layer gets what the tf_keras model gives it. So a difference is found in the layer that
    makes it, and cannot grow on its way through quantizers.

    Args:
        model: Sequential or functional.
        twin: of the whole model.
        twin_of: gives the twin of a layer of it.
        sample: inputs as the model takes them; random ones if None.

    Raises:
        ValueError: a layer that differs, or a sample that does not fit.
    """
    inputs = random_inputs(model) if sample is None else given_inputs(model, sample)
    expected = tf.nest.flatten(_model(model, inputs, twin_of, ""))
    outputs = tf.nest.flatten(twin(inputs, training=False))
    for name, one, other in zip(model.output_names, expected, outputs, strict=True):
        one, other = _array(one), _array(other)
        far = np.linalg.norm(np.ravel(one - other)) > OUTPUT_TOLERANCE * np.linalg.norm(one)
        if one.shape != other.shape or (one.dtype.kind == "f" and far):
            raise ValueError(
                f"model '{model.name}', output '{name}': expected what tf_keras computes, got "
                "another output, although every layer is the same"
            )


def _model(model: tf_keras.Model, inputs: Any, twin_of: Callable, path: str) -> Any:
    """The outputs of a tf_keras model; its layers are compared on the way."""
    if isinstance(model, tf_keras.Sequential):
        for layer in model.layers:
            inputs = _call(layer, (inputs,), {}, twin_of, path)
        return inputs
    values = dict(zip(ids(model._nested_inputs), tf.nest.flatten(inputs), strict=True))
    for node in needed_calls(model):
        args, kwargs = arguments(node, values)
        values.update(results(node, _call(node.layer, args, kwargs, twin_of, path)))
    return tf.nest.map_structure(lambda tensor: values[id(tensor)], model._nested_outputs)


def _call(layer, args: tuple, kwargs: dict, twin_of: Callable, path: str) -> Any:
    """What a tf_keras layer gives; its twin must give the same."""
    path = f"{path}/{layer.name}" if path else layer.name
    if has_graph(layer):
        return _model(layer, args[0] if args else kwargs["inputs"], twin_of, path)
    outputs = _infer(layer, args, kwargs)
    others = _infer(twin_of(layer), *keras3_arguments(layer, args, kwargs))
    expected, got = tf.nest.flatten(outputs), tf.nest.flatten(others)
    if len(expected) != len(got):
        return outputs  # a shape: its sizes, which the twin has one by one
    for one, other in zip(expected, got, strict=True):
        difference = relative_difference(_array(one), _array(other))
        if not difference <= TOLERANCES.get(_dtype(one), 0.0):
            raise ValueError(
                f"layer '{path}' ({type(layer).__name__}): expected Keras 3 to compute what "
                f"tf_keras computes, got outputs that differ by {difference:.1e} of the largest "
                "value"
            )
    return outputs


def _infer(layer, args: tuple, kwargs: dict) -> Any:
    """Call a layer, or the function that stands for one, as `predict` does."""
    is_layer = isinstance(layer, keras.layers.Layer | tf_keras.layers.Layer)
    if is_layer and "training" in inspect.signature(layer.call).parameters:
        kwargs = {**kwargs, "training": False}
    return layer(*args, **kwargs)


def relative_difference(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference of two arrays, relative to the largest finite value of the first.

    Infinite if they differ in shape, or in where they are not finite.
    """
    if one.shape != other.shape:
        return np.inf
    if one.dtype.kind not in "fiub":
        return 0.0 if np.array_equal(one, other) else np.inf
    one, other = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(one)
    if not np.array_equal(finite, np.isfinite(other)):
        return np.inf
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return np.inf
    difference = np.abs(one[finite] - other[finite]).max(initial=0.0)
    scale = np.abs(one[finite]).max(initial=0.0)
    return float(difference / scale) if scale else float(np.inf if difference else 0.0)


def random_inputs(model: tf_keras.Model) -> Any:
    """The same random inputs each time, in the structure of the model's.

    Ids of embeddings are drawn from all rows, other whole numbers below 100, and floats are
    normal.

    Raises:
        ValueError: an input of another type than numbers.
    """
    generator = np.random.default_rng(0)
    limits = id_limits(model)

    def draw(tensor):
        first, *rest = tensor.shape
        shape = (first or SAMPLES, *(n or FREE_AXIS for n in rest))
        dtype = tf.as_dtype(tensor.dtype)
        if not (dtype.is_floating or dtype.is_integer or dtype.is_bool):
            raise ValueError(
                f"input '{tensor.name}': expected a sample for inputs of type {dtype.name}, got "
                "none; call kerasbits.tfmot.to_keras3(model, sample=...)"
            )
        limit = limits.get(id(tensor), 2 if dtype.is_bool else 100)
        if dtype.is_floating and id(tensor) not in limits:
            values = generator.standard_normal(shape)
        else:
            values = generator.integers(0, limit, shape)
        return tf.constant(values.astype(dtype.as_numpy_dtype))

    return tf.nest.map_structure(draw, input_structure(model))


def given_inputs(model: tf_keras.Model, sample) -> Any:
    """A sample in the structure and the types of the model's inputs.

    Raises:
        ValueError: if it does not fit.
    """
    wanted = input_structure(model)
    tensors, arrays = tf.nest.flatten(wanted), tf.nest.flatten(sample)
    if len(tensors) != len(arrays):
        raise ValueError(f"sample: expected {len(tensors)} inputs, got {len(arrays)}")
    try:
        values = [tf.cast(a, t.dtype) for a, t in zip(arrays, tensors, strict=True)]
    except (TypeError, ValueError, tf.errors.OpError):
        raise ValueError("sample: expected arrays that fit the types of the inputs") from None
    for value, tensor in zip(values, tensors, strict=True):
        if not tensor.shape.is_compatible_with(value.shape) or not len(value):
            raise ValueError(
                f"sample, input '{tensor.name}': expected shape {tuple(tensor.shape)}, got "
                f"{tuple(value.shape)}"
            )
    return tf.nest.pack_sequence_as(wanted, values)


def _array(value) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _dtype(tensor) -> str:
    return tf.as_dtype(tensor.dtype).name if hasattr(tensor, "dtype") else ""
