"""The `Quantizer` protocol: one method, described without any framework state.

A quantizer owns no variables. It *declares* them (`variables`) and is handed their values as
`state`, a plain dictionary. The owner of the variables is a *host*: a Keras 3 layer
(`kerasbits.layers`) or a tfmot wrapper. So one description of a method serves every host.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from keras import ops

from kerasbits import replicas
from kerasbits.packed import InputGrid, PackedTensor

State = Mapping[str, Any]
Updates = dict[str, Any]

NOT_FROZEN = -1.0
"""Value of the `fixed_bits` variables before `freeze`."""


@dataclasses.dataclass(frozen=True)
class VariableSpec:
    """A variable that a quantizer asks its host to create.

    Args:
        shape: shape of the variable.
        initial: a number, or for kernels a function `initial(w) -> array` of the float weight.
        trainable: whether the optimizer moves it.
        min, max: range that the host keeps the *value* in after each optimizer step.
        rate: learning-rate multiplier, a power of two. The host stores `value / rate`, so an
            optimizer that moves the variable by `lr` moves the value by `lr * rate`. A power of
            two makes the division exact.
    """

    shape: tuple[int, ...] = ()
    initial: float | Callable[[np.ndarray], Any] = 0.0
    trainable: bool = True
    min: float | None = None
    max: float | None = None
    rate: float = 1.0


@dataclasses.dataclass(frozen=True)
class Site:
    """One place where a quantizer works: a kernel, or the input of a layer.

    Args:
        name: path of the layer, for messages and reports.
        role: "kernel" or "input".
        shape: shape of the kernel in Keras order, or of one input sample (no batch axis;
            unknown axes are None).
        channel_axis: axis of the output channels of a kernel; None for inputs.
        macs: multiply-accumulates per sample of the layer that uses the tensor.
        share: weight of this site in sums over the network, as `Quantizer.share` computed it
            once the whole network was known; 1.0 until then.
        prunable: whether output channels of the kernel may be dropped. False for depthwise
            kernels, where an output channel cannot go without an input channel.
    """

    name: str = ""
    role: str = "kernel"
    shape: tuple[int | None, ...] = ()
    channel_axis: int | None = -1
    macs: int = 0
    share: float = 1.0
    prunable: bool = True

    @property
    def size(self) -> int:
        """Number of elements; unknown axes count as 1."""
        return int(np.prod([1 if n is None else n for n in self.shape], dtype=np.int64))

    @property
    def channels(self) -> int:
        """Number of output channels of a kernel, 1 for an input."""
        return 1 if self.channel_axis is None else int(self.shape[self.channel_axis])

    @property
    def reduced_axes(self) -> tuple[int, ...]:
        """Axes of a kernel that feed one output channel."""
        axis = self.channel_axis % len(self.shape)
        return tuple(i for i in range(len(self.shape)) if i != axis)

    def error(self, expected: str, got: Any) -> ValueError:
        """A `ValueError` that names the layer, what was expected and what came."""
        where = f"layer '{self.name}', {self.role}" if self.name else self.role
        return ValueError(f"{where}: expected {expected}, got {got}")


class Quantizer:
    """Base of all quantizers; subclasses are frozen dataclasses whose fields are their config.

    `state` holds tensors in `quantize`, `observe` and `loss`, and NumPy arrays in `freeze`,
    `adjust`, `encode` and `grid`, which run between epochs or at export. `widths` accepts both.
    """

    owns_weight: ClassVar[bool] = False  # True if the state replaces the kernel (BSQ)
    stochastic: ClassVar[bool] = False  # True if `quantize` draws random numbers from `seed`
    roles: ClassVar[tuple[str, ...]] = ("kernel", "input")
    shapeless: ClassVar[bool] = False  # True if `quantize` takes kernels whose axes are None

    # What every method defines.

    def variables(self, site: Site) -> dict[str, VariableSpec]:
        """Declare the variables this site needs."""
        raise NotImplementedError

    def quantize(self, x, state: State, site: Site, training: bool = False, seed=None):
        """Return `(xq, updates)`: the quantized tensor and new values of non-trainable state."""
        raise NotImplementedError

    def widths(self, state: State, site: Site):
        """Bits per element: scalar, or `(channels,)`; real while training, 0 = dropped channel.

        Not called `bits`, because many methods have a dataclass field of that name.
        """
        raise NotImplementedError

    def encode(self, w: np.ndarray, state: State, site: Site) -> PackedTensor:
        """Integer codes and grid of a kernel, as `quantize(training=False)` uses them."""
        raise NotImplementedError

    def grid(self, state: State, site: Site) -> InputGrid:
        """The grid of an input, as `quantize(training=False)` uses it."""
        raise NotImplementedError

    # What a method defines where it differs from the plain case.

    def loss(self, state: State, site: Site):
        """Scalar to be added to the training loss, or None."""
        return None

    def observe(self, x, state: State, site: Site) -> Updates:
        """New values of the range state of an input after seeing the batch `x`."""
        return {}

    def freeze(self, state: State, site: Site) -> Updates:
        """Updates that make the bits whole and final. Idempotent."""
        return {}

    def adjust(self, state: State, site: Site) -> Updates:
        """Updates applied between epochs (BSQ drops planes that became empty)."""
        return {}

    def share(self, site: Site, sites: Sequence[Site]) -> float:
        """Weight of `site` among the `sites` of the network that have this kind of quantizer."""
        return 1.0

    # What every method inherits.

    def apply(self, x, state: State, site: Site, training: bool = False, seed=None):
        """`quantize`, after giving an input that was never observed the range of its first batch.

        The state of inputs marks this by a variable `seen`, 0 until the range is known. In
        inference the range of the data at hand is used and nothing is stored.
        """
        if "seen" not in state:
            return self.quantize(x, state, site, training, seed)
        names = sorted(self.observed(site))
        start = dict(zip(names, self._start_values(x, state, site, names), strict=True))
        y, updates = self.quantize(x, {**state, **start}, site, training, seed)
        return y, ({**start, **updates} if training else {})

    def observed(self, site: Site) -> list[str]:
        """Names of the state that `observe` sets at this site; empty if there is none."""
        return []

    def _start_values(self, x, state, site, names):
        known = [ops.cast(state[n], "float32") for n in names]
        if replicas.several():
            # They exchange what they find, which none may do under a condition.
            first = self._first_values(x, state, site, names)
            return [ops.where(state["seen"] > 0.5, k, f) for k, f in zip(known, first, strict=True)]
        found = ops.cond(
            state["seen"] > 0.5,
            lambda: known,
            lambda: self._first_values(x, state, site, names),
        )
        # Statistics have no gradient; that of a condition would be made for nothing.
        return [ops.stop_gradient(value) for value in found]

    def _first_values(self, x, state, site, names):
        observed = self.observe(x, state, site)
        return [ops.cast(observed[n], "float32") for n in names]

    def get_config(self) -> dict[str, Any]:
        """The dataclass fields."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Quantizer:
        """Rebuild from `get_config`."""
        return cls(**config)
