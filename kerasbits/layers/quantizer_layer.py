"""The Keras 3 host of a quantizer: owns its variables, adds its loss, assigns its updates."""

from __future__ import annotations

import keras
from keras import ops

from kerasbits.host import Host
from kerasbits.quantizers.base import Quantizer, Site

SEED = "seed"
"""Name in saved files of the state of the random numbers."""


@keras.saving.register_keras_serializable(package="kerasbits")
class QuantizerLayer(Host, keras.layers.Layer):
    """Quantize one tensor with a `Quantizer`, holding the variables it declares.

    The layer always works in float32, whatever the dtype policy around it, and returns the
    dtype it was given.

    Args:
        quantizer: the method.
        rate: learning-rate multiplier of all its trained variables, a power of two.
    """

    def __init__(self, quantizer: Quantizer, rate: float = 1.0, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32", "autocast": False})
        self.supports_masking = True
        self.set_up(quantizer, rate)
        if self.quantizer.stochastic:
            self.seed_generator = keras.random.SeedGenerator()

    def build_at(self, site: Site, source=None) -> None:
        """Create the variables for `site`; `source` is the kernel variable they start from.

        The site may have the kernel's elements in another shape.
        """
        if self.built:
            return
        self.create(site, source, self.add_weight)
        # The loss depends on variables alone, so it is the regularizer of one of them. It counts
        # once, however often a layer is called; and replicas that exchange statistics in the middle
        # of a step, in turns, would find each other's losses in the list behind `add_loss`.
        trained = [self._values[name] for name, spec in self._specs.items() if spec.trainable]
        if trained and type(self.quantizer).loss is not Quantizer.loss:
            trained[0].regularizer = self._regularizer
        self.built = True

    def build(self, input_shape=None):
        """Nothing: the owner calls `build_at`, which knows the site."""

    def call(self, x, training=False):
        """Quantized `x`; assigns the updates of the quantizer."""
        return self.run(x, training)

    def _regularizer(self, _):
        penalty = self.penalty()
        return ops.zeros(()) if penalty is None else penalty

    def compute_output_shape(self, input_shape):
        """Unchanged."""
        return input_shape

    def get_config(self):
        """The quantizer and the rate."""
        quantizer = keras.saving.serialize_keras_object(self.quantizer)
        return {**super().get_config(), "quantizer": quantizer, "rate": self.rate}

    def save_own_variables(self, store):
        """Save, with the state of the random numbers, which Keras forgets."""
        super().save_own_variables(store)
        if self.quantizer.stochastic:
            store[SEED] = ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store):
        """Load, then bring the share back into the site record."""
        values = {name: store[name] for name in store.keys()}  # noqa: SIM118 (not a mapping)
        if SEED in values:
            self.seed_generator.state.assign(values.pop(SEED))
        super().load_own_variables(values)
        self.read_share()
