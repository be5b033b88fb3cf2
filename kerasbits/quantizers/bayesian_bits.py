"""Bayesian Bits: learned widths of 2, 4, 8, 16 or 32 bits and learned pruning of channels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from kerasbits import packed
from kerasbits.maths import bayesian_bits as maths
from kerasbits.maths import hard_concrete
from kerasbits.quantizers import ranges
from kerasbits.quantizers.base import NOT_FROZEN, Quantizer, Site, State, Updates, VariableSpec
from kerasbits.quantizers.bayesian_bits_packing import pack_grid, pack_kernel
from kerasbits.quantizers.checks import check_choice, check_number, finite_kernel

FIXED_GATE = 1e3
"""Parameter of gates that the configuration holds open (and minus this: closed). In floating
point their samples and probabilities are exactly 1 (0) and have no gradient."""


@keras.saving.register_keras_serializable(package="kerasbits")
@dataclasses.dataclass(frozen=True)
class BayesianBits(Quantizer):
    """A uniform quantizer with learned range, whose width and channels are learned by gates.

    Formula: `xq = z_2 (x_2 + z_4 (e_4 + z_8 (e_8 + z_16 (e_16 + z_32 e_32))))`, the 2-bit
    quantization and its successive residuals; see `maths.bayesian_bits.quantize_gated`. In
    training the gates are hard concrete samples, drawn anew in each forward pass and shared by
    the batch. At inference a gate is 1 if it is 0 with probability below 0.34, else 0. After
    `freeze` the tensor has one width b: `xq = mask * s_b * round(clip(x) / s_b)`, gates never
    open again, and the range is still learned.

    Loss: `strength * mean_i q_2i (c_2 + c_4 q_4 + c_8 q_4 q_8 + ...)`, `q` the probabilities that
    gates are on; 0 once frozen.

    Gradient: straight-through rounding; see `quantize_gated` and `sample_gate`.

    The kernels of a network's last layer must keep all channels (they are the classes), which a
    quantizer cannot know: give that layer `BayesianBits(prune=False)` by a rule.

    Args:
        strength: factor of the loss.
        cost: "bops" makes `c_b = b * share`, with `share` the layer's multiply-accumulates
            relative to the largest of the network; "const" makes all `c_b` 1.
        prune: whether kernels have a gate for each output channel. Depthwise kernels and inputs
            never have.
        max_bits: wider gates stay closed; one of 2, 4, 8, 16, 32.
        min_bits: gates up to this width stay open. `min_bits == max_bits` learns only pruning.
        signed: True, False, or None to follow the data.
        init: "magnitude" starts the range at `max|x|`; "official" at `max(x)` like the authors'
            code, which clips larger negative values.
        phi: initial parameter of all gates. The paper starts at 6, where a sample is 1 with
            probability 0.99 and most steps give the gate no gradient. At 3 that is 0.80, and
            the gate is closed at -0.94.
        rate: learning-rate multiplier of the gates, a power of two. Adam at 1e-3 moves a gate by
            at most 1e-3 a step: 4000 steps from 3 to closed, beyond a short training. With 8 it
            takes 500, about one epoch of MNIST at batch 128; the gates of three widths that
            close one after the other stay within a few epochs. (The paper: 6 and 1.)
        cutoff: a gate at or below this is exactly 0, and all wider ones with it; for good, since
            it then feels only the loss. None for no such cut.
        keep_one: at inference and in `freeze`, keep the likeliest channel if all would be
            dropped, so that the network is not cut in two.
        noise: False replaces the samples by `hard_concrete.noise_free_gate`.

    Raises:
        ValueError: a field out of its range.

    Example:
        quantizer = BayesianBits(strength=0.05, max_bits=8)
        site = Site(shape=w.shape)
        specs = quantizer.variables(site)

    Reference: van Baalen et al., "Bayesian Bits", NeurIPS 2020, arXiv 2005.07093.
    """

    strength: float = 0.01
    cost: str = "bops"
    prune: bool = True
    max_bits: int = 32
    min_bits: int = 2
    signed: bool | None = None
    init: str = "magnitude"
    phi: float = 3.0
    rate: float = 8.0
    cutoff: float | None = -2.0
    keep_one: bool = True
    noise: bool = True

    stochastic: ClassVar[bool] = True
    shapeless: ClassVar[bool] = True

    def __post_init__(self):
        name = "BayesianBits"
        check_number(name, "strength", self.strength, low=0)
        check_choice(name, "cost", self.cost, ("bops", "const"))
        check_choice(name, "max_bits", self.max_bits, maths.WIDTHS)
        check_choice(name, "min_bits", self.min_bits, maths.WIDTHS)
        if self.min_bits > self.max_bits:
            raise ValueError(
                f"{name}: expected min_bits <= max_bits, got {self.min_bits} > {self.max_bits}"
            )
        check_choice(name, "signed", self.signed, (None, True, False))
        check_choice(name, "init", self.init, ("magnitude", "official"))
        check_number(name, "phi", self.phi)
        check_number(name, "rate", self.rate)
        if self.rate <= 0 or math.frexp(self.rate)[0] != 0.5:
            raise ValueError(f"{name}: expected rate to be a power of two, got {self.rate!r}")
        if self.cutoff is not None:
            check_number(name, "cutoff", self.cutoff)
        for field in ("prune", "keep_one", "noise"):
            check_choice(name, field, getattr(self, field), (True, False))

    def variables(self, site: Site) -> dict[str, VariableSpec]:
        """Declare the state.

        `phi` (4,): gates of 4, 8, 16, 32 bits. `phi_prune` (C,): gates of the channels, if they
        have any, and `fixed_mask` (C,): the channels kept by `freeze`. `fixed_bits` (): the width
        chosen by `freeze`, -1 before. And the range, see `ranges`.
        """
        gates = len(maths.WIDTHS) - 1
        specs = {
            **ranges.range_variables(site, self.signed),
            "phi": VariableSpec((gates,), self.phi, rate=self.rate),
            "fixed_bits": VariableSpec((), NOT_FROZEN, trainable=False),
        }
        if self.init == "official" and site.role == "kernel":
            specs["range_unit"] = ranges.range_variables(site, signed=False)["range_unit"]
        if self.prune and site.role == "kernel" and site.prunable:
            channels = (site.channels,)
            specs["phi_prune"] = VariableSpec(channels, self.phi, rate=self.rate)
            specs["fixed_mask"] = VariableSpec(channels, 1.0, trainable=False)
        return specs

    def quantize(self, x, state: State, site: Site, training: bool = False, seed=None):
        """Gated sum, or the fixed width once frozen.

        Args:
            x: tensor; computed in float32 and returned in its own dtype.
            state, site: as in the protocol.
            training: whether gates are sampled.
            seed: `keras.random.SeedGenerator` or int, needed in training.

        Raises:
            ValueError: training without a seed.
        """
        x = ops.convert_to_tensor(x)
        gates, mask = self._sample(state, site, seed) if training else self._infer(state)
        if "fixed_mask" in state:
            mask = ops.where(_is_fixed(state), _float32(state["fixed_mask"]), mask)
        y = maths.quantize_once_fixed(
            _float32(x),
            ranges.current_range(state),
            state["signed"],
            gates,
            ranges.along_channels(mask, site),
            _float32(state["fixed_bits"]),
            ops.logical_and(gates > 0, gates < 1),
        )
        return ops.cast(y, x.dtype), {}

    def _width_phi(self, state: State):
        """Parameters of the width gates, those that the configuration fixes far out."""
        widths, phi = np.array(maths.WIDTHS[1:]), _float32(state["phi"])
        if self.min_bits >= widths[0]:
            phi = ops.where(widths <= self.min_bits, FIXED_GATE, phi)
        if self.max_bits < widths[-1]:
            phi = ops.where(widths > self.max_bits, -FIXED_GATE, phi)
        return phi

    def _sample(self, state: State, site: Site, seed):
        """Gates of one training step: `(4,)` and `(C,)`, or `()` without pruning."""
        phis = [self._width_phi(state)]
        if "phi_prune" in state:
            phis.append(_float32(state["phi_prune"]))
        if not self.noise:
            gates = [hard_concrete.noise_free_gate(phi) for phi in phis]
        elif seed is None:
            raise site.error("a seed (keras.random.SeedGenerator or int) in training", "None")
        else:
            # One draw, in parts: what is cut has no gradient, which would ask XLA for the place.
            split, count = phis[0].shape[0], sum(phi.shape[0] for phi in phis)
            u = keras.random.uniform((count,), dtype="float32", seed=seed)
            noise = (u[:split], u[split:])[: len(phis)]
            gates = [hard_concrete.sample_gate(*pair) for pair in zip(phis, noise, strict=True)]
        mask = gates[1] if len(gates) > 1 else ops.ones(())
        return gates[0] * hard_concrete.uncut(phis[0], self.cutoff), mask

    def _infer(self, state: State):
        """Gates of inference, of the same shapes."""
        phi = self._width_phi(state)
        gates = hard_concrete.inference_gate(phi) * hard_concrete.uncut(phi, self.cutoff)
        if "phi_prune" not in state:
            return gates, ops.ones(())
        channels = _float32(state["phi_prune"])
        mask = hard_concrete.inference_gate(channels)
        if self.keep_one:
            best = ops.one_hot(ops.argmax(channels), channels.shape[0], dtype="float32")
            mask = ops.where(ops.max(mask) > 0, mask, best)
        return gates, mask

    def loss(self, state: State, site: Site):
        """The expected cost of what is switched on."""
        on = hard_concrete.probability_on(self._width_phi(state))
        channels = state.get("phi_prune")
        channel_on = None if channels is None else hard_concrete.probability_on(channels)
        widths = np.float32(maths.WIDTHS if self.cost == "bops" else [1] * len(maths.WIDTHS))
        costs = ops.stop_gradient(site.share * ops.convert_to_tensor(widths))
        live = 1.0 - ops.cast(_is_fixed(state), "float32")
        return self.strength * live * maths.expected_cost(on, channel_on, costs)

    def share(self, site: Site, sites: Sequence[Site]) -> float:
        """Multiply-accumulates of the layer relative to the largest layer; 1 if none has any, or
        if they do not count."""
        largest = max((s.macs for s in sites), default=0)
        return site.macs / largest if largest > 0 and self.cost == "bops" else 1.0

    def widths(self, state: State, site: Site):
        """The width that inference uses, a whole number also while training; `(C,)` if pruned."""
        gates, mask = self._infer(state)
        bits = ops.cast(maths.effective_bits(gates), "float32")
        bits = ops.where(_is_fixed(state), _float32(state["fixed_bits"]), bits)
        if "fixed_mask" not in state:
            return bits
        return bits * ops.where(_is_fixed(state), _float32(state["fixed_mask"]), mask)

    def observe(self, x, state: State, site: Site) -> Updates:
        """Running largest magnitude (or value, see `init`) and sign of an input."""
        if site.role != "input":
            return {}
        updates = ranges.observe_range(x, state, self.signed)
        if self.init == "official":
            updates = {**ranges.observe_range(x, state, False), "signed": updates["signed"]}
        return updates

    def observed(self, site: Site) -> list[str]:
        """The range of an input."""
        return list(ranges.OBSERVED) if site.role == "input" else []

    def freeze(self, state: State, site: Site) -> Updates:
        """Fix the width and the channels that inference uses now.

        Raises:
            ValueError: NaN or infinity in a gate parameter.
        """
        for name in ("phi", "phi_prune"):
            if name in state and not np.isfinite(state[name]).all():
                raise site.error(f"finite gate parameters {name}", "NaN or infinity")
        if _is_fixed(state):
            return {}
        gates, mask = self._infer(state)
        updates = {"fixed_bits": np.float32(maths.effective_bits(ops.convert_to_numpy(gates)))}
        if "fixed_mask" in state:
            updates["fixed_mask"] = ops.convert_to_numpy(mask)
        return updates

    def encode(self, w: np.ndarray, state: State, site: Site) -> packed.PackedTensor:
        """Codes `k + zero`, `zero` the code of the value 0; float values at 32 bits.

        Dropped channels have 0 bits, and codes or values 0.

        Raises:
            ValueError: not frozen, or NaN or infinity in the kernel.
        """
        bits = self._frozen_bits(state, site)
        w = finite_kernel(w, site)
        kept = np.ones(site.channels, bool)
        if "fixed_mask" in state:
            kept = np.asarray(state["fixed_mask"]) > 0.5
        return pack_kernel(w, bits, kept, *_range(state), site)

    def grid(self, state: State, site: Site) -> packed.InputGrid:
        """The grid of an input, with 0 exactly on it.

        Raises:
            ValueError: not frozen, or no range was observed yet.
        """
        bits = self._frozen_bits(state, site)
        ranges.check_observed(state, site)
        return pack_grid(bits, *_range(state))

    def _frozen_bits(self, state: State, site: Site) -> int:
        if not _is_fixed(state):
            raise site.error("whole bits: call kerasbits.freeze first", "gates still learning")
        return int(state["fixed_bits"])


def _float32(value):
    return ops.cast(value, "float32")


def _is_fixed(state: State):
    return state["fixed_bits"] > 0


def _range(state: State):
    return ranges.current_range(state), float(np.asarray(state["signed"]) > 0.5)
