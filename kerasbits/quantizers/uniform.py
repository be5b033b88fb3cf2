"""Plain uniform quantization with a learned range: the baseline, and the default for inputs."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from kerasbits import packed
from kerasbits.maths import uniform
from kerasbits.quantizers import ranges
from kerasbits.quantizers.base import Quantizer, Site, State, Updates, VariableSpec
from kerasbits.quantizers.checks import check_choice, check_whole, finite_kernel


@keras.saving.register_keras_serializable(package="kerasbits")
@dataclasses.dataclass(frozen=True)
class Uniform(Quantizer):
    """Evenly spaced levels up to a learned threshold beta.

    Formula: `xq = step * round(clip(x, lo, beta) / step)`, ties to even. Signed: `lo = -beta`,
    `step = beta / (2^(b-1) - 1)`, `2^b - 1` levels. Unsigned: `lo = 0`,
    `step = beta / (2^b - 1)`, `2^b` levels. With one bit an input is `{0, beta}`.

    Gradient: `dxq/dx = 1` inside the range, 0 outside; `dxq/dbeta = (xq - x) / beta` inside,
    `+-1` at a clipped end.

    Args:
        bits: bits per element, 1..16; at least 2 for signed grids and for kernels.
        granularity: one threshold a "tensor", or one for each output "channel" of a kernel.
        signed: True, False, or None to follow the data.

    Raises:
        ValueError: a field out of its range.

    Example:
        quantizer = Uniform(bits=4)
        site = Site(shape=w.shape)

    Reference: arXiv 1805.06085 (PACT); arXiv 1902.08153 (LSQ), eq. 3.
    """

    shapeless: ClassVar[bool] = True

    bits: int = 8
    granularity: str = "tensor"
    signed: bool | None = None

    def __post_init__(self):
        check_whole("Uniform", "bits", self.bits, 1, packed.MAX_CODE_BITS)
        check_choice("Uniform", "granularity", self.granularity, ("tensor", "channel"))
        check_choice("Uniform", "signed", self.signed, (None, True, False))
        if self.signed and self.bits < 2:
            raise ValueError("Uniform: expected bits of at least 2 for a signed grid, got 1")

    def variables(self, site: Site) -> dict[str, VariableSpec]:
        """`range`, `range_unit`, `signed`, and for inputs `seen`; see `ranges`."""
        if self.bits == 1 and site.role == "kernel" and self.signed is None:
            raise site.error(
                "bits of at least 2 (for binary kernels use LeastSquaresBinary)", "Uniform(bits=1)"
            )
        return ranges.range_variables(site, self._sign(), self.granularity)

    def _sign(self) -> bool | None:
        """One bit has no room for a sign, whatever the data."""
        return False if self.bits == 1 else self.signed

    def quantize(self, x, state: State, site: Site, training: bool = False, seed=None):
        """The nearest level of each value."""
        x = ops.convert_to_tensor(x)
        return uniform.quantize(x, self._threshold(x, state, site), self.bits, state["signed"]), {}

    def _threshold(self, x, state: State, site: Site):
        beta = ranges.current_range(state, x.dtype)
        return ranges.along_channels(beta, site) if site.role == "kernel" else beta

    def widths(self, state: State, site: Site):
        """The constant number of bits."""
        return ops.convert_to_tensor(float(self.bits), "float32")

    def observe(self, x, state: State, site: Site) -> Updates:
        """Running largest magnitude and sign of an input."""
        return ranges.observe_range(x, state, self._sign()) if site.role == "input" else {}

    def observed(self, site: Site) -> list[str]:
        """The range of an input."""
        return list(ranges.OBSERVED) if site.role == "input" else []

    def encode(self, w: np.ndarray, state: State, site: Site) -> packed.PackedTensor:
        """Codes `k + zero`, where `zero` is the code of the value 0.

        Raises:
            ValueError: NaN or infinity in the kernel.
        """
        w = ops.convert_to_tensor(finite_kernel(w, site))
        steps = uniform.codes(w, self._threshold(w, state, site), self.bits, state["signed"])
        scale, zero = self._scale(state)
        scale = np.atleast_1d(scale)
        return packed.PackedTensor(
            name=site.name,
            codes=(ops.convert_to_numpy(steps).astype(np.int32) + zero).astype(np.uint16),
            bits=np.full(site.channels, self.bits, np.int32),
            channel_axis=site.channel_axis % len(site.shape),
            encoding=packed.Uniform(
                scale=packed.frozen_copy(scale, np.float32),
                zero=packed.frozen_copy(np.full(scale.shape, zero), np.int32),
                origin=packed.frozen_copy(np.zeros(scale.shape), np.float32),
            ),
        )

    def grid(self, state: State, site: Site) -> packed.UniformGrid:
        """The grid of an input, with 0 exactly on it.

        Raises:
            ValueError: no range was observed yet.
        """
        ranges.check_observed(state, site)
        scale, zero = self._scale(state)
        beta = float(ops.convert_to_numpy(ranges.current_range(state)))
        lo = -beta if zero else 0.0
        return packed.UniformGrid(
            bits=self.bits, lo=lo, hi=beta, origin=0.0, step=float(scale), zero=zero
        )

    def _scale(self, state: State) -> tuple[np.ndarray, int]:
        """Value per code step, () or (C,), and the code of 0."""
        step = uniform.step_size(ranges.current_range(state), self.bits, state["signed"])
        signed = float(np.asarray(state["signed"])) > 0.5
        return ops.convert_to_numpy(step), 2 ** (self.bits - 1) - 1 if signed else 0
