"""The Keras 3 layer of the same configuration as a tf_keras layer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tf_keras

from kerasbits.layers import keras2

RENAMED = {
    "LeakyReLU": {"alpha": "negative_slope"},
    "InputLayer": {"batch_input_shape": "batch_shape"},
}
"""Arguments that have another name in Keras 3, by class."""

REMEMBERED = (
    "batch_input_shape",  # of a first layer in a Sequential model, which has an Input
    "input_length",  # of an Embedding: its input has it
    "implementation",  # of a recurrent layer: how it computes, not what
    "query_shape",  # of attention: known again when it is called
    "key_shape",
    "value_shape",
    "vocabulary_size",  # of lookups: the vocabulary is there itself
    "rng_type",  # of augmentation layers: which generator they draw from
)
"""Entries of configurations that say nothing about what the layer computes."""

KERNEL = ("kernel_initializer", "kernel_regularizer", "kernel_constraint")
UNUSED = {"SeparableConv1D": KERNEL, "SeparableConv2D": KERNEL}
"""Entries that a class has from its base and does nothing with."""

OWN = {tf_keras.layers.ThresholdedReLU: keras2.ThresholdedReLU}
"""Layers that Keras 3 does not have."""


def translated(
    layer: tf_keras.layers.Layer,
    classes: Mapping[type, Any] | None = None,
    form: type[keras.layers.Layer] | None = None,
    **changes,
) -> keras.layers.Layer:
    """A new Keras 3 layer, not built, that computes what a tf_keras layer does.

    Args:
        layer: of a class that both have, or one in `classes`.
        classes: Keras 3 classes (or functions of a configuration) for classes of the user's own.
        form: takes the place of the plain Keras 3 class, as `QuantDense` does for `Dense`.
        changes: to the configuration.

    Raises:
        ValueError: a class that Keras 3 does not have, or a setting of it; names the layer.
    """
    kind = (classes or {}).get(type(layer)) or keras3_class(type(layer))
    where = f"layer '{layer.name}' ({type(layer).__name__})"
    if kind is None:
        raise ValueError(
            f"{where}: expected a layer that Keras 3 has too, got {type(layer).__module__}."
            f"{type(layer).__name__}; say by which Keras 3 class to replace it: "
            f"to_keras3(model, classes={{{type(layer).__name__}: ...}})"
        )
    if type(layer) is tf_keras.layers.Lambda:
        return _lambda(layer, **changes)
    try:
        config = _config(type(layer), kind, layer.get_config())
        config |= _own_functions(layer, config) | {"name": keras3_name(layer.name)} | changes
        make = form or kind
        return make.from_config(config) if isinstance(make, type) else make(config)
    except Exception as error:  # whatever a constructor makes of arguments that it does not know
        raise ValueError(f"{where}: Keras 3 has no such layer: {error}") from error


def _lambda(layer: tf_keras.layers.Lambda, **changes) -> keras.layers.Lambda:
    """With the function itself, which in a configuration would be bytes."""
    config = {"arguments": layer.arguments, "trainable": layer.trainable, "dtype": layer.dtype}
    return keras.layers.Lambda(
        layer.function, **config | {"name": keras3_name(layer.name)} | changes
    )


def keras3_arguments(layer: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Arguments of a call of a tf_keras layer for its twin.

    tf_keras puts the initial state of a recurrent layer into one list with its input. Keras 3 does
    not pass the mask of an input on beside an initial state.
    """
    recurrent = isinstance(layer, tf_keras.layers.RNN | tf_keras.layers.Bidirectional)
    if recurrent and args and isinstance(args[0], list | tuple):
        (first, *state), *others = args
        mask = getattr(first, "_keras_mask", None)
        masked = {} if mask is None else {"mask": mask}
        return (first, *others), {**masked, **kwargs, "initial_state": list(state)}
    return args, kwargs


def keras3_class(kind: type) -> type | None:
    """The Keras 3 class for a layer class of tf_keras; None for any other class."""
    if kind in OWN:
        return OWN[kind]
    name = kind.__name__
    theirs, ours = getattr(tf_keras.layers, name, None), getattr(keras.layers, name, None)
    return ours if theirs is kind else None


def keras3_name(name: str) -> str:
    """A name that Keras 3 allows: `/` separates paths there."""
    return name.replace("/", "_")


def _config(theirs: type, ours: Any, config: dict) -> dict:
    """The configuration in the words of Keras 3."""
    renamed = RENAMED.get(theirs.__name__, {})
    result = {}
    for key, value in config.items():
        new = renamed.get(key, key)
        if new in REMEMBERED or new in UNUSED.get(theirs.__name__, ()):
            continue
        if isinstance(ours, type) and not _takes(ours, new):
            _check_dropped(theirs, key, value)
        else:
            result[new] = _value(new, value)
    if theirs is tf_keras.layers.BatchNormalization and isinstance(result["axis"], list):
        (result["axis"],) = result["axis"]
    return result


def _takes(kind: type, key: str) -> bool:
    """Whether a Keras 3 class has an argument of this name, or its bases do."""
    for base in kind.__mro__:
        parameters = inspect.signature(base.__init__).parameters
        if key in parameters:
            return True
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return False
        if base is keras.layers.Layer:  # it refuses what it does not know by itself
            break
    return False


def _check_dropped(kind: type, key: str, value) -> None:
    """Arguments that Keras 3 does not have must not matter."""
    for base in kind.__mro__:
        parameter = inspect.signature(base.__init__).parameters.get(key)
        if parameter is not None and parameter.default is not parameter.empty:
            if value == parameter.default:
                return
            break
    if value is None or value is False:
        return
    raise ValueError(f"there is no {key}={value!r}")


def _value(key: str, value):
    """A value of a configuration: what is serialized in it comes from Keras 3."""
    if isinstance(value, Mapping) and "class_name" in value:
        return _object(value)
    if isinstance(value, Mapping):
        return {k: _value(k, v) for k, v in value.items()}
    if key.endswith("activation") and value == "hard_sigmoid":
        return keras.saving.serialize_keras_object(keras2.hard_sigmoid)
    if isinstance(value, list | tuple):
        values = [_value(key, v) for v in value]
        return tuple(values) if isinstance(value, tuple) else values
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return value


def _object(serialized: Mapping) -> Any:
    """A serialized layer, initializer, regularizer, constraint, or dtype policy."""
    config = serialized.get("config")
    if serialized["class_name"] in ("Policy", "PolicyV1", "LossScaleOptimizer"):
        return config["name"]
    theirs = getattr(tf_keras.layers, serialized["class_name"], None)
    standard = str(serialized.get("module")).split(".")[0] in ("keras", "tf_keras")
    if standard and theirs is not None:
        ours = keras3_class(theirs)
        if ours is None:
            raise ValueError(f"there is no {serialized['class_name']}")
        config = {**_config(theirs, ours, config), "name": keras3_name(config["name"])}
    elif isinstance(config, Mapping):
        config = {k: _value(k, v) for k, v in config.items()}
    return {**serialized, "config": config}


def _own_functions(layer, config: dict) -> dict:
    """Activations that are functions of the user's own: the functions themselves."""
    found = {}
    for key in config:
        function = getattr(layer, key, None)
        own = inspect.isfunction(function) and not _is_known(function)
        if own and key.endswith("activation"):
            found[key] = function
    return found


def _is_known(function) -> bool:
    module = str(getattr(function, "__module__", ""))
    return module.split(".")[0] in ("tf_keras", "tensorflow", "keras")
