"""The tfmot host of a quantizer."""

from __future__ import annotations

import functools
import random

import keras
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from kerasbits.host import Host
from kerasbits.quantizers import Quantizer, Site

REMEDY = (
    "quantize_apply(model, scheme=kerasbits.tfmot.KerasbitsQuantizeScheme()), or "
    "kerasbits.tfmot.quantize_apply(model)"
)


class KerasbitsQuantizer(Host, tfmot.quantization.keras.quantizers.Quantizer):
    """A tfmot `Quantizer` that works by a `kerasbits.Quantizer` and holds its variables.

    One for each tensor: `KerasbitsQuantizeConfig` makes them.

    Args:
        quantizer: the method.
        weight: the kernel that the variables start from; None for inputs.
        rate: learning-rate multiplier of all its trained variables, a power of two.
    """

    def __init__(self, quantizer: Quantizer, weight=None, rate: float = 1.0):
        self.set_up(quantizer, rate)
        self._weight = weight

    def build(self, tensor_shape, name: str, layer) -> dict[str, tf.Variable]:
        """Create the variables as weights of the wrapper `layer`, and return them by name.

        Raises:
            ValueError: a wrapper of tfmot's own, which knows no inputs and no costs.
        """
        site = layer.site_of(self) if hasattr(layer, "site_of") else None
        if site is None:
            raise ValueError(
                f"layer '{layer.layer.name}': expected the wrapper of kerasbits, got "
                f"{type(layer).__name__} of tfmot's default scheme: use {REMEDY}"
            )
        self.create(site, self._weight, functools.partial(_add_weight, layer, name))
        if self.quantizer.stochastic:
            self.seed_generator = _Seed(_add_seed(layer, f"{name}/seed"))
        return self._values

    def __call__(self, inputs, training, weights=None, **kwargs):
        """The quantized tensor, in the shape and dtype of `inputs`."""
        inputs = tf.convert_to_tensor(inputs)
        if self.site.role == "input":
            return self.run(inputs, training)
        return tf.reshape(self.run(tf.reshape(inputs, self.site.shape), training), inputs.shape)

    def reset(self, source=None, names=None) -> None:
        """Give variables (all, or `names`) their initial values again, from the kernel."""
        super().reset(self._weight if source is None else source, names)

    def get_config(self) -> dict:
        """The method and the rate."""
        quantizer = keras.saving.serialize_keras_object(self.quantizer)
        return {"quantizer": quantizer, "rate": self.rate}

    def _apply(self, x, state, site: Site, training):
        """As in `Host`, but `training` may be a tensor, known only when the graph runs."""
        known = tf.get_static_value(training) if tf.is_tensor(training) else training
        if known is not None:
            return super()._apply(x, state, site, bool(known))
        names = []

        def train():
            y, updates = super(KerasbitsQuantizer, self)._apply(x, state, site, True)
            names[:] = updates
            return y, [tf.reshape(updates[n], state[n].shape) for n in names]

        def infer():
            y, _ = super(KerasbitsQuantizer, self)._apply(x, state, site, False)
            return y, [state[n] for n in names]

        y, values = tf.cond(training, train, infer)
        return y, dict(zip(names, values, strict=True))


class _Seed(keras.random.SeedGenerator):
    """Random numbers whose state is a weight of a tf_keras layer, so that every format saves it."""

    def __init__(self, state: tf.Variable):
        self.state = state

    def next(self, ordered: bool = True):
        """The seed of the next draw; as the base class counts."""
        seed = tf.identity(self.state)
        self.state.assign(seed + tf.constant([0, 1], self.state.dtype))
        return seed


def _add_weight(layer, prefix: str, name: str, **arguments) -> tf.Variable:
    return layer.add_weight(
        name=f"{prefix}/{name}", dtype="float32", experimental_autocast=False, **arguments
    )


def _add_seed(layer, name: str) -> tf.Variable:
    """A seed as `keras.random.SeedGenerator` draws it."""

    def initial(shape, dtype=None, **_):
        return tf.constant([random.randint(1, int(1e9)), 0], dtype)

    return layer.add_weight(
        name=name, shape=(2,), dtype="int64", initializer=initial, trainable=False
    )
