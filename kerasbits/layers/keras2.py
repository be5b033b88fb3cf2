"""What Keras 2 computes and Keras 3 does not, for models that come from there."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kerasbits", name="hard_sigmoid_of_keras_2")
def hard_sigmoid(x):
    """`max(0, min(1, 0.2 x + 0.5))`. In Keras 3 the slope of `hard_sigmoid` is 1/6."""
    return ops.clip(0.2 * x + 0.5, 0.0, 1.0)


@keras.saving.register_keras_serializable(package="kerasbits")
class ThresholdedReLU(keras.layers.Layer):
    """`x` where `x > theta`, else 0."""

    def __init__(self, theta: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.theta = float(theta)

    def call(self, inputs):
        """The layer's output."""
        return inputs * ops.cast(inputs > self.theta, inputs.dtype)

    def compute_output_shape(self, input_shape):
        """Unchanged."""
        return input_shape

    def get_config(self):
        """The threshold."""
        return {**super().get_config(), "theta": self.theta}
