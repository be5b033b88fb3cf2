"""APoT: levels that are sums of powers of two, under a learned clipping threshold."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from kerasbits import packed
from kerasbits.maths import apot as maths
from kerasbits.quantizers import ranges
from kerasbits.quantizers.base import Quantizer, Site, State, Updates, VariableSpec
from kerasbits.quantizers.checks import check_choice, check_rate, check_whole, finite_kernel

INITIAL_ALPHA = 3.0
"""Of kernels, in standard deviations."""

MIN_ALPHA = 1e-3
"""Smallest alpha of kernels, in standard deviations."""


@keras.saving.register_keras_serializable(package="kerasbits")
@dataclasses.dataclass(frozen=True)
class APoT(Quantizer):
    """Round to sums of powers of two below a learned threshold alpha.

    Formula: `xq = alpha * sign(x) P(min(|x| / alpha, 1))`, P the nearest of the levels; kernels
    are first normalized to mean 0 and deviation 1. A signed grid of b bits has the magnitudes of
    b - 1 bits and their negatives, `2^b - 1` levels; an unsigned one has `2^b`.

    Gradient: to alpha `sign(x)` where clipped, else `sign(x) P - x / alpha`; to x 1, and 0 where
    clipped (see `gradient`).

    State of a normalized kernel: `alpha` (trainable), in deviations. Of inputs, and of kernels
    that are not normalized: a learned range, see `ranges`.

    Args:
        bits: 2..8 for signed grids, 1..8 for unsigned ones.
        granularity: one alpha a "tensor", or one for each output "channel" of a kernel. Mean and
            deviation are always those of the whole kernel.
        k: bits of one term, 2 in the paper. Others must divide the bits of a magnitude; 1 is
            uniform, and the bits of a magnitude themselves give plain powers of two.
        signed: True, False, or None to follow the data. Normalized kernels are signed.
        normalize: normalize kernels, as the method asks; alpha is unstable without.
        rescale: multiply a normalized kernel by its deviation, so that the layer keeps its scale.
            False is the paper's form, for layers followed by batch norm.
        std: deviation of the "population" (plus 1e-5) or of the "sample" (as the authors' code).
        gradient: kernels, where clipped: "clipped" is 0, "pass" is 1; None takes "pass" for 2
            bits and "clipped" above. Clipped inputs always get 0.
        normalization_gradient: "full" through mean and deviation, or "detached".
        rate: learning rate of alpha relative to that of the weights, a power of two.

    Raises:
        ValueError: a field out of its range.

    Example:
        QuantConv2D(32, 3, kernel_quantizer=APoT(4), input_quantizer=APoT(4))

    Reference: Li, Dong, Wang, arXiv 1909.13144.
    """

    shapeless: ClassVar[bool] = True

    bits: int = 4
    granularity: str = "tensor"
    k: int = 2
    signed: bool | None = None
    normalize: bool = True
    rescale: bool = True
    std: str = "population"
    gradient: str | None = None
    normalization_gradient: str = "full"
    rate: float = 1.0

    def __post_init__(self):
        check_whole("APoT", "bits", self.bits, 1, 8)
        check_choice("APoT", "granularity", self.granularity, ("tensor", "channel"))
        check_whole("APoT", "k", self.k, 1, 8)
        check_choice("APoT", "signed", self.signed, (None, True, False))
        check_choice("APoT", "normalize", self.normalize, (True, False))
        check_choice("APoT", "rescale", self.rescale, (True, False))
        check_choice("APoT", "std", self.std, ("population", "sample"))
        check_choice("APoT", "gradient", self.gradient, (None, "clipped", "pass"))
        gradients = ("full", "detached")
        check_choice("APoT", "normalization_gradient", self.normalization_gradient, gradients)
        check_rate("APoT", self.rate)
        if self.signed and self.bits < 2:
            raise ValueError("APoT: expected bits of at least 2 for a signed grid, got 1")

    def variables(self, site: Site) -> dict[str, VariableSpec]:
        """`alpha` for a normalized kernel, else a learned range.

        Raises:
            ValueError: bits or k that give this site no grid, an unsigned grid for a normalized
                kernel, levels beyond 16 bits, or granularity "channel" for an input.
        """
        if site.role == "kernel" and site.size == 0:
            raise site.error("a kernel with at least one element", f"shape {site.shape}")
        if self._normalized(site) and self.signed is False:
            raise site.error("signed levels for a normalized kernel", "signed=False")
        if site.role == "kernel" and self.bits == 1 and self.signed is None:
            raise site.error(
                "bits of at least 2 (for binary kernels use LeastSquaresBinary)", "APoT(bits=1)"
            )
        self._magnitudes(site)
        if not self._normalized(site):
            specs = ranges.range_variables(site, self._sign(site), self.granularity)
            specs["range"] = dataclasses.replace(specs["range"], rate=self.rate)
            return specs
        shape = (site.channels,) if self.granularity == "channel" else ()
        return {"alpha": VariableSpec(shape, INITIAL_ALPHA, min=MIN_ALPHA, rate=self.rate)}

    def _normalized(self, site: Site) -> bool:
        return self.normalize and site.role == "kernel"

    def _sign(self, site: Site) -> bool | None:
        """Whether the grid is signed; None if the state says so."""
        if self._normalized(site):
            return True
        return False if self.bits == 1 else self.signed

    def _magnitudes(self, site: Site) -> tuple:
        """Levels of the signed and of the unsigned grid, None for one that cannot occur."""
        sign = self._sign(site)
        wanted = (None if sign is False else self.bits - 1, None if sign else self.bits)
        try:
            found = [None if b is None else maths.magnitude_levels(b, self.k) for b in wanted]
        except ValueError as error:
            both = "; give signed=True or False to need one grid only" if sign is None else ""
            raise site.error("bits and k that fit each other", f"{error}{both}") from error
        limit = np.iinfo(np.int16).max
        if any(levels is not None and levels[-1] > limit for levels in found):
            raise site.error(f"levels of at most {limit}", f"APoT(bits={self.bits}, k={self.k})")
        return tuple(found)

    def _grid_state(self, x, state: State, site: Site):
        """`(x, alpha, signed, table, rescale)` for `maths.quantize`, `x` normalized."""
        if self._normalized(site):
            x, deviation = maths.normalize(x, self.std, self.normalization_gradient)
            alpha = ops.cast(state["alpha"], x.dtype)
            alpha = ops.maximum(alpha, ops.cast(MIN_ALPHA, x.dtype))
            signed, rescale = 1.0, deviation if self.rescale else 1.0
        else:
            alpha, rescale = ranges.current_range(state, x.dtype), 1.0
            signed = ops.cast(state["signed"], x.dtype)
        if site.role == "kernel":
            alpha = ranges.along_channels(alpha, site)
        table = maths.level_table(signed, *self._magnitudes(site), x.dtype)
        return x, alpha, signed, table, rescale

    def quantize(self, x, state: State, site: Site, training: bool = False, seed=None):
        """The nearest level of each value."""
        x, alpha, signed, table, rescale = self._grid_state(ops.convert_to_tensor(x), state, site)
        clipped = site.role == "input" or self._clipped
        return maths.quantize(x, alpha, signed, table, rescale, clipped), {}

    @property
    def _clipped(self) -> bool:
        """Two bits need the gradient of clipped weights: most weights are clipped."""
        return self.bits > 2 if self.gradient is None else self.gradient == "clipped"

    def widths(self, state: State, site: Site):
        """The constant number of bits."""
        return ops.convert_to_tensor(float(self.bits), "float32")

    def observe(self, x, state: State, site: Site) -> Updates:
        """Running largest magnitude and sign of an input."""
        return ranges.observe_range(x, state, self._sign(site)) if site.role == "input" else {}

    def observed(self, site: Site) -> list[str]:
        """The range of an input."""
        return list(ranges.OBSERVED) if site.role == "input" else []

    def encode(self, w: np.ndarray, state: State, site: Site) -> packed.PackedTensor:
        """Codes that rise with the value, and whole levels; the scale holds alpha.

        Raises:
            ValueError: NaN or infinity in the kernel.
        """
        w = ops.convert_to_tensor(finite_kernel(w, site))
        x, alpha, signed, table, rescale = self._grid_state(w, state, site)
        index = ops.convert_to_numpy(maths.codes(x, alpha, signed, table))
        scale = ops.convert_to_numpy(maths.level_scale(alpha, table, rescale))
        mirrored, magnitudes = self._table_in_force(signed, site)
        levels = [-i for i in magnitudes[:0:-1]] if mirrored else []
        return packed.PackedTensor(
            name=site.name,
            codes=(index + len(levels)).astype(np.uint16),
            bits=np.full(site.channels, self.bits, np.int32),
            channel_axis=site.channel_axis % len(site.shape),
            encoding=packed.Table(
                levels=packed.frozen_copy([*levels, *magnitudes], np.int16),
                scale=packed.frozen_copy(np.reshape(scale, -1), np.float32),
            ),
        )

    def grid(self, state: State, site: Site) -> packed.TableGrid:
        """The grid of an input, with 0 exactly on it.

        Raises:
            ValueError: no range was observed yet.
        """
        ranges.check_observed(state, site)
        alpha = ops.convert_to_numpy(ranges.current_range(state))
        signed, levels = self._table_in_force(state["signed"], site)
        scale = np.float32(alpha) / np.float32(levels[-1])
        return packed.TableGrid(
            bits=self.bits,
            signed=signed,
            levels=packed.frozen_copy(levels, np.int16),
            midpoints=packed.frozen_copy(maths.level_midpoints(levels), np.float32),
            unit=float(alpha),
            scale=float(scale),
        )

    def _table_in_force(self, signed, site: Site) -> tuple[bool, tuple[int, ...]]:
        if_signed, if_unsigned = self._magnitudes(site)
        mirrored = float(ops.convert_to_numpy(signed)) > 0.5
        return mirrored, if_signed if mirrored else if_unsigned
