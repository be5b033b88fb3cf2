"""What every owner of the variables of a quantizer does, whatever framework creates them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasbits import shared_graphs
from kerasbits.quantizers.base import Quantizer, Site, Updates, VariableSpec


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


class Host:
    """Mixin: the variables that a quantizer declares, and what is done with them.

    A variable of rate r is stored as `value / r` (see `VariableSpec`). The rate of the host
    multiplies that of every trained variable.

    The class that takes it in calls `set_up` first, `create` once the tensor is known, and then
    `run` for each tensor, and sees to it that the `penalty` is added to the loss once a step.
    `sites`, `lifecycle`, `report` and exporters use the rest.
    """

    quantizer: Quantizer
    rate: float = 1.0
    site: Site | None = None
    observing: bool = False
    seed_generator: Any = None

    def set_up(self, quantizer: Quantizer | dict, rate: float = 1.0) -> None:
        """Take the method, or its serialized configuration, and the rate.

        Raises:
            ValueError: a rate that is no power of two.
        """
        if isinstance(quantizer, dict):
            quantizer = keras.saving.deserialize_keras_object(quantizer)
        self.quantizer = quantizer
        self.rate = checked_rate(rate, type(quantizer).__name__)
        self.site = None
        self.observing = False

    def create(self, site: Site, source, add_weight: Callable) -> None:
        """Create the variables for `site`.

        Args:
            site: the place; it may have the kernel's elements in another shape.
            source: the kernel variable they start from; None for inputs.
            add_weight: called as `add_weight(name=, shape=, initializer=, trainable=,
                constraint=)`, returns a float32 variable.

        Raises:
            ValueError: a role that the quantizer does not have.
        """
        if site.role not in self.quantizer.roles:
            roles = " or ".join(f"{role}_quantizer" for role in self.quantizer.roles)
            raise site.error(f"a quantizer for this role ({roles})", repr(self.quantizer))
        self.site = site
        self._specs = {
            name: dataclasses.replace(spec, rate=spec.rate * self.rate) if spec.trainable else spec
            for name, spec in self.quantizer.variables(site).items()
        }
        self._values = {
            name: add_weight(
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
        self._share = add_weight(
            name="share", shape=(), initializer="ones", trainable=False, constraint=None
        )

    def run(self, x, training):
        """Quantized `x` in its own dtype; assigns the updates of the quantizer.

        Args:
            x: the tensor; computed in float32.
            training: whether this is a training step.
        """
        given = x.dtype
        x = ops.cast(x, "float32")
        state = self._tensors()
        if self.observing:
            self.assign(self.quantizer.observe(x, state, self.site))
            state = self._tensors()
        y, updates = self._apply(x, state, self.site, training)
        self.assign(updates)
        # Whole-number inputs become floats: their quantized values are none.
        return ops.cast(y, given) if "float" in keras.backend.standardize_dtype(given) else y

    def penalty(self):
        """What the quantizer adds to the loss of the model, a scalar tensor or None."""
        # The share of a saved model is that of its variable.
        site = dataclasses.replace(self.site, share=ops.copy(self._share))
        return shared_graphs.loss(self.quantizer, self._tensors(), site)

    def state(self) -> dict[str, np.ndarray]:
        """Current values as NumPy arrays."""
        # Of tensors, because variables of tf_keras that are mirrored on several devices are no
        # arrays.
        return {name: ops.convert_to_numpy(value) for name, value in self._tensors().items()}

    def assign(self, updates: Updates) -> list:
        """Store new values; return the variables that were written."""
        for name, value in updates.items():
            variable = self._values[name]
            value = _over(ops.cast(value, variable.dtype), self._specs[name].rate)
            if tuple(value.shape) != tuple(variable.shape):
                value = ops.reshape(value, variable.shape)
            variable.assign(value)
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

    def read_share(self) -> None:
        """Bring the saved share back into the site record, after weights were loaded."""
        if self.site is not None:
            share = float(ops.convert_to_numpy(self._share))
            self.site = dataclasses.replace(self.site, share=share)

    def _apply(self, x, state, site: Site, training):
        seed = self.seed_generator if self.quantizer.stochastic else None
        return shared_graphs.apply(self.quantizer, x, state, site, bool(training), seed)

    def _tensors(self):
        # Tensors, not variables: a loss that *is* a variable cannot be added.
        tensors = {name: ops.copy(v) for name, v in self._values.items()}
        return {name: _times(v, self._specs[name].rate) for name, v in tensors.items()}


def _times(value, rate: float):
    """The product; most rates are 1, and graphs are dear."""
    return value if rate == 1 else value * rate


def _over(value, rate: float):
    return value if rate == 1 else value / rate


def checked_rate(rate: float, where: str) -> float:
    """The multiplier of learning rates as a float; `where` begins the message.

    Raises:
        ValueError: not a power of two, by which numbers are divided without an error.
    """
    number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if not number or not rate > 0 or math.frexp(rate)[0] != 0.5:
        raise ValueError(f"{where}: expected a rate that is a power of two, got {rate!r}")
    return float(rate)


def _initializer(spec: VariableSpec, source, site: Site):
    """Initializer that reads the kernel only when called: frameworks may defer creation."""

    def initial(shape, dtype=None, **_):
        value = spec.initial
        if callable(value):
            if source is None:
                raise ValueError("this quantizer starts from a kernel, and none was given")
            w = _read(source)
            value = 1.0 if w is None else value(w.reshape(site.shape))
        # A Python number would stay weakly typed on JAX: the first step would make it strong, and
        # so compile the second step again.
        value = np.asarray(value, keras.backend.standardize_dtype(dtype or "float32"))
        return ops.convert_to_tensor(np.broadcast_to(value / value.dtype.type(spec.rate), shape))

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
