"""Bit-level sparsity quantization of kernels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from kerasbits import packed
from kerasbits.maths import bsq as maths
from kerasbits.quantizers.base import NOT_FROZEN, Quantizer, Site, State, Updates, VariableSpec
from kerasbits.quantizers.checks import check_choice, check_number, check_whole, finite_kernel

WIDEST = packed.MAX_CODE_BITS - 1
"""Greatest magnitude width: one more bit for the sign has to fit in a code."""


@keras.saving.register_keras_serializable(package="kerasbits")
@dataclasses.dataclass(frozen=True)
class BSQ(Quantizer):
    """Train every bit of every weight, and drop the bit planes that a group Lasso empties.

        Z = round(sum_b (p_b - m_b) 2^b);    w = s / (2^n - 1) * Z;    p_b, m_b in [0, 2]

    The planes replace the kernel. `adjust`, called between epochs, turns them into whole bits,
    lets the layer grow by a bit where values need it, and drops empty planes at both ends: n
    falls, the weights stay. `freeze` fixes n; from then on a latent weight is trained:

        Z = round(latent * (2^n - 1)),    latent in [-1, 1]

    The loss of a layer is `strength * share * n * sum_b sqrt(sum(p_b^2 + m_b^2) + 1e-8)`, with
    share the part of the network's BSQ weights that is in this layer.

    Memory: `2 * max_bits + 1` times the kernel, and the optimizer's slots of it.

    Gradient: rounding has slope 1, clipping too (`kerasbits.maths.bsq`).

    Args:
        bits: magnitude bits to start with, 1..15; the sign takes one more.
        strength: of the group Lasso, alpha in the paper (3e-3 to 2e-2 there).
        max_bits: magnitude bits a layer may grow to, 1..15; at least `bits` is taken. 7 fits
            int8 kernels.
        rate: learning-rate multiplier of the planes, a power of two. With Adam at 1e-3 and the
            default 4 a bit falls from 1 to 0 in 250 steps at full speed.
        clamp_forward: clip Z to the present width, as the authors' code does; a weight that
            was clipped then jumps when the layer grows.

    Raises:
        ValueError: a field out of its range.

    Example:
        >>> q, site = BSQ(bits=2), Site(shape=(2, 1))
        >>> w = np.float32([[0.3], [-0.1]])
        >>> state = {name: v.initial(w) if callable(v.initial) else np.full(v.shape, v.initial)
        ...          for name, v in q.variables(site).items()}
        >>> q.quantize(w, state, site)[0]  # [[0.3], [-0.1]]: Z = 3 and -1, step 0.1

    Reference: Yang, Duan, Chen, Li, "BSQ: Exploring bit-level sparsity for mixed-precision
    neural network quantization", ICLR 2021, arXiv 2102.10462.
    """

    bits: int = 8
    strength: float = 5e-3
    max_bits: int = 8
    rate: float = 4.0
    clamp_forward: bool = False

    owns_weight: ClassVar[bool] = True
    roles: ClassVar[tuple[str, ...]] = ("kernel",)

    def __post_init__(self):
        check_whole("BSQ", "bits", self.bits, 1, WIDEST)
        check_whole("BSQ", "max_bits", self.max_bits, 1, WIDEST)
        check_number("BSQ", "strength", self.strength, 0)
        check_number("BSQ", "rate", self.rate, 2.0**-32, 2.0**32)
        if math.frexp(self.rate)[0] != 0.5:
            raise ValueError(f"BSQ: expected rate to be a power of two, got {self.rate!r}")
        check_choice("BSQ", "clamp_forward", self.clamp_forward, (True, False))

    @property
    def plane_count(self) -> int:
        """Number of planes that are kept, n_max."""
        return max(self.bits, self.max_bits)

    def variables(self, site: Site) -> dict[str, VariableSpec]:
        """Planes, scale and width, all from the float kernel; the latent weight of fine-tuning.

        `positive`, `negative`: (n_max, *shape); `scale`: value of the top level; `precision`:
        present magnitude bits; `fixed_bits`: those after `freeze`; `latent`: shape of the kernel.

        Raises:
            ValueError: an input, or (when the kernel comes) NaN in the kernel.
        """
        if site.role != "kernel":
            raise site.error("a kernel (BSQ trains the bits of weights)", repr(self))
        planes = (self.plane_count, *site.shape)

        def started(index: int):
            return lambda w: self._start(w, site)[index]

        bit = {"min": 0.0, "max": 2.0, "rate": self.rate}
        return {
            "positive": VariableSpec(planes, started(0), **bit),
            "negative": VariableSpec(planes, started(1), **bit),
            "scale": VariableSpec((), started(2)),
            "precision": VariableSpec((), started(3), trainable=False),
            "fixed_bits": VariableSpec((), NOT_FROZEN, trainable=False),
            "latent": VariableSpec(site.shape, 0.0, min=-1.0, max=1.0),
        }

    def _start(self, w, site: Site) -> list[np.ndarray]:
        w = ops.convert_to_tensor(finite_kernel(w, site))
        z, scale, n = maths.from_weights(w, self.bits)
        planes = maths.split_planes(z, self.plane_count)
        return [ops.convert_to_numpy(t) for t in (*planes, scale, n)]

    def quantize(self, x, state: State, site: Site, training: bool = False, seed=None):
        """The kernel that the state holds; `x`, the kernel it started from, is not used."""
        return self._step(state) * self._codes(state), {}

    def widths(self, state: State, site: Site):
        """Bits a weight takes: magnitude and sign, 0 if nothing is left."""
        n = self.magnitude_bits(state)
        return ops.where(n > 0, n + 1, n)

    def magnitude_bits(self, state: State):
        """n, the number the paper reports: bits without the sign."""
        fixed = ops.convert_to_tensor(state["fixed_bits"])
        return ops.where(fixed >= 0, fixed, state["precision"])

    def loss(self, state: State, site: Site):
        """Group Lasso, weighted by size and width; 0 once frozen."""
        n = state["precision"]
        lasso = maths.group_lasso(state["positive"], state["negative"], n)
        active = ops.cast(state["fixed_bits"] < 0, lasso.dtype)
        return self.strength * site.share * n * lasso * active

    def share(self, site: Site, sites: Sequence[Site]) -> float:
        """Part of the weights of all BSQ sites that this site has."""
        return site.size / sum(s.size for s in sites)

    def adjust(self, state: State, site: Site) -> Updates:
        """Make the bits whole, grow by a bit if needed, and drop empty planes at both ends.

        The kernel stays what it is, but for the rounding of `scale`.

        Raises:
            ValueError: NaN or infinity in the state.
        """
        return {} if _frozen(state) else self._adjusted(state, site)[0]

    def freeze(self, state: State, site: Site) -> Updates:
        """`adjust`, then fix the width and hand the weights over to `latent`.

        Raises:
            ValueError: NaN or infinity in the state.
        """
        if _frozen(state):
            return {}
        updates, z = self._adjusted(state, site)
        n = updates["precision"]
        top = ops.convert_to_numpy(maths.top_level(ops.convert_to_tensor(n), self.plane_count))
        return {**updates, "fixed_bits": n, "latent": z / np.maximum(top, 1)}

    def _adjusted(self, state: State, site: Site) -> tuple[Updates, np.ndarray]:
        """The updates of `adjust`, and the whole numbers they stand for."""
        state = _tensors(state, ("positive", "negative", "scale", "precision"), site)
        scale, n, n_max = state["scale"], state["precision"], self.plane_count
        z = maths.plane_codes(state["positive"], state["negative"], n)
        # A scale that training pushed below 0 gives its sign to the weights.
        z, scale = ops.where(scale < 0, -z, z), ops.abs(scale)
        z, scale, n = maths.trim(*maths.requantize(z, scale, n, n_max), n_max)
        positive, negative = maths.split_planes(z, n_max)
        updates = {"positive": positive, "negative": negative, "scale": scale, "precision": n}
        updates = {name: ops.convert_to_numpy(value) for name, value in updates.items()}
        return updates, ops.convert_to_numpy(z)

    def encode(self, w: np.ndarray, state: State, site: Site) -> packed.PackedTensor:
        """Signed whole numbers, moved up by `L_n` to be codes of `n + 1` bits.

        A state that was not adjusted may hold values that need one bit more; it gets it.

        Raises:
            ValueError: NaN or infinity in the state.
        """
        state = _tensors(state, tuple(state), site)
        z = ops.convert_to_numpy(self._codes(state))
        step = ops.convert_to_numpy(self._step(state))
        if step < 0:
            z, step = -z, -step
        n = int(ops.convert_to_numpy(self.magnitude_bits(state)))
        n += bool(np.abs(z).max() > 2**n - 1)
        top = 2**n - 1
        return packed.PackedTensor(
            name=site.name,
            codes=(z + top).astype(np.uint16),
            bits=np.full(site.channels, n + 1 if n else 0, np.int32),
            channel_axis=site.channel_axis % len(site.shape),
            encoding=packed.Uniform(
                scale=packed.frozen_copy([step], np.float32),
                zero=packed.frozen_copy([top], np.int32),
                origin=packed.frozen_copy([0.0], np.float32),
            ),
        )

    def _codes(self, state: State):
        """Z: from the planes, after `freeze` from the latent weight."""
        n = self.magnitude_bits(state)
        names = ("positive", "negative", "latent")
        positive, negative, latent = (ops.convert_to_tensor(state[name]) for name in names)
        planes = maths.plane_codes(positive, negative, n, self.clamp_forward)
        latent = maths.latent_codes(latent, n, self.plane_count)
        return ops.where(state["fixed_bits"] >= 0, latent, planes)

    def _step(self, state: State):
        return maths.step_size(state["scale"], self.magnitude_bits(state), self.plane_count)


def _frozen(state: State) -> bool:
    return float(np.asarray(state["fixed_bits"])) >= 0


def _tensors(state: State, names: Sequence[str], site: Site) -> State:
    """Part of a NumPy state as tensors; whole numbers must never be made of NaN."""
    for name in names:
        if not np.isfinite(state[name]).all():
            raise site.error(f"finite values in {name}", "NaN or infinity")
    return {name: ops.convert_to_tensor(state[name], dtype="float32") for name in names}
