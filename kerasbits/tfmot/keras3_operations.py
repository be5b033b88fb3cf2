"""TensorFlow operations that stand in tf_keras models, as Keras 3 operations.

tf_keras makes a layer of each TensorFlow function that is called on a tensor of a functional model:
`x + y`, `tf.nn.relu(x)`, `x[:, 1:]`. Such a layer knows the function and its arguments. Here stands
what the function is called in Keras 3.

Shapes are known while a model is converted. So `tf.shape(x)` becomes a tuple, with None for the
batch, and arithmetic on its members is done at once.
"""

from __future__ import annotations

import inspect
import operator
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from kerasbits.tfmot.keras3_functions import FUNCTIONS

UNARY = {
    "identity": lambda x: x,
    "math.abs": ops.abs,
    "math.ceil": ops.ceil,
    "math.cos": ops.cos,
    "math.erf": ops.erf,
    "math.exp": ops.exp,
    "math.expm1": ops.expm1,
    "math.floor": ops.floor,
    "math.is_finite": ops.isfinite,
    "math.is_nan": ops.isnan,
    "math.log": ops.log,
    "math.log1p": ops.log1p,
    "math.logical_not": ops.logical_not,
    "math.negative": ops.negative,
    "math.reciprocal": ops.reciprocal,
    "math.rint": ops.round,
    "math.round": ops.round,
    "math.rsqrt": ops.rsqrt,
    "math.sigmoid": ops.sigmoid,
    "math.sign": ops.sign,
    "math.sin": ops.sin,
    "math.softplus": ops.softplus,
    "math.sqrt": ops.sqrt,
    "math.square": ops.square,
    "math.tanh": ops.tanh,
    "nn.elu": ops.elu,
    "nn.relu": ops.relu,
    "nn.relu6": ops.relu6,
    "nn.selu": ops.selu,
    "nn.softsign": ops.softsign,
    "stop_gradient": ops.stop_gradient,
}
"""Functions of one tensor."""

BINARY = {
    "__operators__.add": ops.add,
    "compat.v1.floor_div": ops.floor_divide,
    "math.add": ops.add,
    "math.divide_no_nan": ops.divide_no_nan,
    "math.equal": ops.equal,
    "math.floormod": ops.mod,
    "math.greater": ops.greater,
    "math.greater_equal": ops.greater_equal,
    "math.less": ops.less,
    "math.less_equal": ops.less_equal,
    "math.logical_and": ops.logical_and,
    "math.logical_or": ops.logical_or,
    "math.maximum": ops.maximum,
    "math.minimum": ops.minimum,
    "math.multiply": ops.multiply,
    "math.not_equal": ops.not_equal,
    "math.pow": ops.power,
    "math.squared_difference": lambda x, y: ops.square(ops.subtract(x, y)),
    "math.subtract": ops.subtract,
    "math.truediv": ops.true_divide,
}
"""Functions of two tensors."""

ON_SIZES = {
    "__operators__.add": operator.add,
    "compat.v1.floor_div": operator.floordiv,
    "math.add": operator.add,
    "math.floormod": operator.mod,
    "math.multiply": operator.mul,
    "math.subtract": operator.sub,
}
"""Functions of two sizes of axes."""

REDUCTIONS = {
    "math.reduce_all": ops.all,
    "math.reduce_any": ops.any,
    "math.reduce_logsumexp": ops.logsumexp,
    "math.reduce_max": ops.max,
    "math.reduce_mean": ops.mean,
    "math.reduce_min": ops.min,
    "math.reduce_prod": ops.prod,
    "math.reduce_std": ops.std,
    "math.reduce_sum": ops.sum,
    "math.reduce_variance": ops.var,
}
"""Functions `(input_tensor, axis, keepdims)`."""


def run(layer, args: tuple, kwargs: dict) -> Any:
    """What the Keras 3 counterpart of an operation layer makes of its arguments.

    Args:
        layer: a `TFOpLambda` or `SlicingOpLambda` of a tf_keras model.
        args, kwargs: of its call; Keras 3 tensors, arrays, and sizes of axes as numbers or None.

    Raises:
        ValueError: a function without a counterpart here, or arguments that it does not have.
    """
    symbol = layer.symbol or getattr(layer.function, "__name__", "")
    given = inspect.signature(layer.function).bind(*args, **kwargs).arguments
    given = {name: _plain(value) for name, value in given.items()}
    try:
        return _result(symbol, layer.function, given)
    except Exception as error:  # whatever an operation makes of arguments that it does not know
        raise ValueError(f"layer '{layer.name}' ({_called(symbol)}): {error}") from error


def _result(symbol: str, function, given: dict):
    if symbol == "__operators__.getitem":
        return _item(given["tensor"], given["slice_spec"])
    if symbol in ON_SIZES and all(_is_size(given[name]) for name in ("x", "y")):
        sizes = given["x"], given["y"]
        return None if None in sizes else ON_SIZES[symbol](*sizes)
    if symbol in UNARY:
        first = next(iter(given))
        return _call(lambda **values: UNARY[symbol](values[first]), (first,), function, given)
    if symbol in BINARY:
        return _call(BINARY[symbol], ("x", "y"), function, given, by_position=True)
    if symbol in REDUCTIONS:
        accepted = ("input_tensor", "axis", "keepdims")
        return _call(REDUCTIONS[symbol], accepted, function, given, by_position=True)
    if symbol in FUNCTIONS:
        own = FUNCTIONS[symbol]
        return _call(own, tuple(inspect.signature(own).parameters), function, given)
    raise ValueError(
        "expected an operation that kerasbits.tfmot.to_keras3 knows; use a Keras layer instead"
    )


def _call(own, accepted: tuple[str, ...], function, given: dict, by_position: bool = False):
    """Call a counterpart. What it does not accept must have the value it has anyway."""
    parameters = inspect.signature(function).parameters
    for name, value in given.items():
        if name not in (*accepted, "name") and value is not None:
            default = parameters[name].default
            if not isinstance(value, type(default)) or value != default:
                raise ValueError(f"expected no {name}, got {value!r}")
    values = {name: given[name] for name in accepted if name in given}
    if not by_position:
        return own(**values)
    names = [name for name in accepted if name in values]
    return own(*(values[name] for name in names[:2]), **{n: values[n] for n in names[2:]})


def _item(x, spec):
    """`x[spec]`, of a tensor or of a shape. tf_keras writes slices as dictionaries."""

    def entry(part):
        if isinstance(part, dict):
            return slice(part["start"], part["stop"], part["step"])
        return part

    spec = tuple(entry(p) for p in (spec if isinstance(spec, tuple | list) else (spec,)))
    if isinstance(x, tuple):
        (spec,) = spec
    return x[spec]


def _plain(value):
    """Tensors and variables of TensorFlow, which are constants here, as arrays and numbers."""
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_plain(v) for v in value)
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, tf.Tensor | tf.Variable):
        value = value.numpy()
    return int(value) if isinstance(value, np.integer) else value


def _is_size(value) -> bool:
    """Whether this is a size of an axis: a number, or None where it is unknown."""
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _called(symbol: str) -> str:
    """The function's name for users."""
    return f"tf.{symbol}" if symbol else "a function without a public name"
