"""The Keras 3 host of a quantizer: owns its variables, adds its loss, assigns its updates."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from kerasbits.quantizers.base import Quantizer, Site, Updates, VariableSpec

SEED = "seed"
"""Name in saved files of the state of the random numbers."""


@keras.saving.register_keras_serializable(package="kerasbits")
class Between(keras.constraints.Constraint):
    """Keep a variable in `[min, max]` after each optimizer step; None means no limit."""

    def __init__(self, min: float | None = None, max: float | None = None):
        self.min, self.max = min, max

    def __call__(self, value):
        """The clipped value."""
        if self.min is not None:
            value = ops.maximum(value, ops.cast(self.min, value.dtype))
        if self.max is not None:
            value = ops.minimum(value, ops.cast(self.max, value.dtype))
        return value

    def get_config(self):
        """The two limits."""
        return {"min": self.min, "max": self.max}


@keras.saving.register_keras_serializable(package="kerasbits")
class QuantizerLayer(keras.layers.Layer):
    """Quantize one tensor with a `Quantizer`, holding the variables it declares.

    The layer always works in float32, whatever the dtype policy around it, and returns the
    dtype it was given. A variable of rate r is stored as `value / r` (see `VariableSpec`).

    Args:
        quantizer: the method.
    """

    def __init__(self, quantizer: Quantizer, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32", "autocast": False})
        if isinstance(quantizer, dict):
            quantizer = keras.saving.deserialize_keras_object(quantizer)
        self.quantizer = quantizer
        self.site: Site | None = None
        self.observing = False
        if quantizer.stochastic:
            self.seed_generator = keras.random.SeedGenerator()

    def build_at(self, site: Site, source=None) -> None:
        """Create the variables for `site`; `source` is the kernel variable they start from.

        The site may have the kernel's elements in another shape.
        """
        if self.built:
            return
        if site.role not in self.quantizer.roles:
            roles = " or ".join(f"{role}_quantizer" for role in self.quantizer.roles)
            raise site.error(f"a quantizer for this role ({roles})", repr(self.quantizer))
        self.site = site
        self._specs = self.quantizer.variables(site)
        self._values = {
            name: self.add_weight(
                name=name,
                shape=spec.shape,
                initializer=_initializer(spec, source, site),
                trainable=spec.trainable,
                constraint=_constraint(spec),
            )
            for name, spec in self._specs.items()
        }
        # A variable, because the network around a site is known only after all its layers are
        # built, and because it must survive saving.
        self._share = self.add_weight(name="share", shape=(), initializer="ones", trainable=False)
        self.built = True

    def build(self, input_shape=None):
        """Nothing: the owner calls `build_at`, which knows the site."""

    def call(self, x, training=False):
        """Quantized `x`; adds the loss and assigns the updates of the quantizer."""
        given = x.dtype
        x = ops.cast(x, "float32")
        state, site = self._tensors(), self._site_in_graph()
        if self.observing:
            observed = self.quantizer.observe(x, state, site)
            self.assign(observed)
            state = self._tensors()
        seed = self.seed_generator if self.quantizer.stochastic else None
        y, updates = self.quantizer.apply(x, state, site, training=bool(training), seed=seed)
        self.assign(updates)
        loss = self.quantizer.loss(state, site)
        if loss is not None:
            self.add_loss(loss)
        # Whole-number inputs become floats: their quantized values are none.
        return ops.cast(y, given) if "float" in keras.backend.standardize_dtype(given) else y

    def compute_output_shape(self, input_shape):
        """Unchanged."""
        return input_shape

    def get_config(self):
        """The quantizer."""
        quantizer = keras.saving.serialize_keras_object(self.quantizer)
        return {**super().get_config(), "quantizer": quantizer}

    # What lifecycle, report and exporters use, whatever the host.

    def state(self) -> dict[str, np.ndarray]:
        """Current values as NumPy arrays."""
        return {
            name: ops.convert_to_numpy(variable) * np.float32(self._specs[name].rate)
            for name, variable in self._values.items()
        }

    def assign(self, updates: Updates) -> list[keras.Variable]:
        """Store new values; return the variables that were written."""
        for name, value in updates.items():
            variable = self._values[name]
            value = ops.cast(value, variable.dtype) / self._specs[name].rate
            variable.assign(ops.reshape(value, variable.shape))
        return [self._values[name] for name in updates]

    def reset(self, source=None, names: Iterable[str] | None = None) -> None:
        """Give variables (all, or `names`) their initial values again, from the kernel `source`."""
        for name in self._specs if names is None else names:
            variable = self._values[name]
            initial = _initializer(self._specs[name], source, self.site)
            variable.assign(initial(tuple(variable.shape), dtype=variable.dtype))

    def set_share(self, share: float) -> None:
        """Set the weight of this site in sums over the network."""
        # As a saved model knows it, so that a loaded one has the very same site.
        self.site = dataclasses.replace(self.site, share=float(np.float32(share)))
        self._share.assign(share)

    def _tensors(self):
        # The product makes tensors of variables: a loss that *is* a variable cannot be added.
        return {name: v * self._specs[name].rate for name, v in self._values.items()}

    def _site_in_graph(self) -> Site:
        return dataclasses.replace(self.site, share=self._share * 1.0)

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
        if self.site is not None:
            share = float(ops.convert_to_numpy(self._share))
            self.site = dataclasses.replace(self.site, share=share)


def _initializer(spec: VariableSpec, source, site: Site):
    """Initializer that reads the kernel only when called: Keras may defer creation."""

    def initial(shape, dtype=None, **_):
        value = spec.initial
        if callable(value):
            if source is None:
                raise ValueError("this quantizer starts from a kernel, and none was given")
            w = _read(source)
            value = 1.0 if w is None else value(w.reshape(site.shape))
        value = ops.cast(ops.convert_to_tensor(value), dtype or "float32") / spec.rate
        return ops.broadcast_to(value, shape)

    return initial


def _read(source) -> np.ndarray | None:
    """The kernel as NumPy, or None while Keras only traces shapes, before any weight exists.

    Layers without a `build` method are built that way. Once tracing is over Keras initializes
    the weights in the order of their creation, and calls the initializers again.
    """
    try:
        return np.asarray(ops.convert_to_numpy(source), np.float32)
    except (NotImplementedError, TypeError):  # TensorFlow and torch; JAX
        return None


def _constraint(spec: VariableSpec) -> Between | None:
    """Constraint in stored units."""
    if spec.min is None and spec.max is None:
        return None
    low = None if spec.min is None else spec.min / spec.rate
    high = None if spec.max is None else spec.max / spec.rate
    return Between(low, high)
