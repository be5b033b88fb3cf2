"""Initializers, regularizers and constraints of a kernel that is stored with other axes.

They are written for the shape that Keras gives the kernel: a norm over its first axis, say. So the
stored matrix is brought to that shape for them.
"""

from __future__ import annotations

import keras
from keras import ops

from kerasbits.layers.matrix_product import from_matrix, to_matrix


class _Reordered:
    """A function of a tensor, for a variable that holds the tensor in another order.

    Args:
        function: on the tensor as Keras has it.
        shape: of that tensor.
        axes: its axes in the order of the variable, which merges some.
    """

    def __init__(self, function, shape, axes):
        if isinstance(function, dict):
            function = keras.saving.deserialize_keras_object(function)
        self.function, self.shape, self.axes = function, tuple(shape), tuple(axes)

    def stored(self, value, shape):
        """The tensor in the order and shape of the variable."""
        return to_matrix(value, self.axes, tuple(shape), ops)

    def original(self, value):
        """The tensor as Keras has it."""
        return from_matrix(value, self.axes, self.shape, ops)

    def get_config(self):
        """The function and the two orders."""
        function = keras.saving.serialize_keras_object(self.function)
        return {"function": function, "shape": list(self.shape), "axes": list(self.axes)}


@keras.saving.register_keras_serializable(package="kerasbits")
class ReorderedInitializer(_Reordered, keras.initializers.Initializer):
    """First values, drawn in the shape that Keras gives the tensor."""

    def __call__(self, shape, dtype=None, **kwargs):
        """Values in the shape of the variable."""
        return self.stored(self.function(self.shape, dtype=dtype, **kwargs), shape)


@keras.saving.register_keras_serializable(package="kerasbits")
class ReorderedRegularizer(_Reordered, keras.regularizers.Regularizer):
    """Penalty of the tensor as Keras has it."""

    def __call__(self, x):
        """The penalty."""
        return self.function(self.original(x))


@keras.saving.register_keras_serializable(package="kerasbits")
class ReorderedConstraint(_Reordered, keras.constraints.Constraint):
    """Projection of the tensor as Keras has it."""

    def __call__(self, w):
        """The projected variable."""
        return self.stored(self.function(self.original(w)), w.shape)


def reordered(shape, axes, **functions) -> dict:
    """Each of the functions `<tensor>_initializer`, `_regularizer` and `_constraint`, reordered."""
    kinds = {
        "initializer": ReorderedInitializer,
        "regularizer": ReorderedRegularizer,
        "constraint": ReorderedConstraint,
    }
    return {
        name: kinds[name.rpartition("_")[2]](function, shape, axes)
        for name, function in functions.items()
        if function is not None
    }
