"""Least squares binary quantization of kernels and inputs."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from kerasbits import packed, replicas
from kerasbits.maths import least_squares as maths
from kerasbits.maths import least_squares_search as search
from kerasbits.quantizers.base import Quantizer, Site, State, Updates, VariableSpec
from kerasbits.quantizers.checks import check_choice, check_number, check_whole, finite_kernel

RUNNING = ("eval_only", "train_and_eval", "off")

SMALLEST_CLAMP = 1e-6
"""A clamp has to leave something of the input."""


@keras.saving.register_keras_serializable(package="kerasbits")
@dataclasses.dataclass(frozen=True)
class LeastSquaresBinary(Quantizer):
    """Signs times scales that minimize the squared error, solved exactly at every forward.

        r = x;  for each scale v_i:  s_i = sign(r);  r = r - v_i s_i;      Q(x) = sum_i v_i s_i

    | scheme | scales | bits | levels |
    |---|---|---|---|
    | ls1 | mean of abs(x) | 1 | -v, v |
    | ls2 | exact optimum | 2 | -v1-v2, -v1+v2, v1-v2, v1+v2 |
    | lst | exact optimum, v1 = v2 = v | 2 | -2v, 0, 2v |
    | gf | greedy, k of them | k | all sums |

    Kernels have one set of scales for each output channel and no state. Inputs have one set for
    each sample in training, and the running average of those, one set for the layer, in
    inference. Until a batch was seen, inference solves for each sample too.

    The gradient treats scales as constants and gives each sign slope 1 where its residual is in
    [-1, 1] (`kerasbits.maths.least_squares.binarize`). Inputs should be outputs of a batch norm:
    after a ReLU the first sign is always +1.

    Args:
        scheme: see the table.
        k: number of planes of "gf", 1..16; not used by the others.
        granularity: "channel" or "tensor", of a kernel. Inputs do not use it.
        running: running average of the scales of an input. "eval_only": used in inference;
            "train_and_eval": used in training too, after the update; "off": neither updated nor
            used in training; inference uses it if calibration filled it.
        momentum: weight of the past in the running average, in [0, 1]; 1 keeps the first batch.
        subsample: solve on every n-th element only: faster, less exact. The paper's code has 3.
        clamp: inputs are first clipped to `[-clamp, clamp]`; None does not clip. The paper has
            2 to 3.

    Raises:
        ValueError: a field out of its range.

    Example:
        >>> q = LeastSquaresBinary("ls1")
        >>> q.quantize(np.float32([[1.0], [-3.0]]), {}, Site(shape=(2, 1)))[0]  # [[2], [-2]]

    Reference: Pouransari, Tu, Tuzel, "Least squares binary quantization of neural networks",
    arXiv 2001.02786.
    """

    shapeless: ClassVar[bool] = True

    scheme: str = "ls1"
    k: int = 2
    granularity: str = "channel"
    running: str = "eval_only"
    momentum: float = 0.99
    subsample: int = 1
    clamp: float | None = None

    def __post_init__(self):
        name = "LeastSquaresBinary"
        check_choice(name, "scheme", self.scheme, maths.SCHEMES)
        check_whole(name, "k", self.k, 1, packed.MAX_CODE_BITS)
        check_choice(name, "granularity", self.granularity, ("channel", "tensor"))
        check_choice(name, "running", self.running, RUNNING)
        check_number(name, "momentum", self.momentum, 0, 1)
        check_whole(name, "subsample", self.subsample, 1, 2**31 - 1)
        if self.clamp is not None:
            check_number(name, "clamp", self.clamp, SMALLEST_CLAMP)

    @property
    def planes(self) -> int:
        """Number of sign planes, which is the number of bits."""
        return {"ls1": 1, "ls2": 2, "lst": 2, "gf": self.k}[self.scheme]

    def variables(self, site: Site) -> dict[str, VariableSpec]:
        """Nothing for kernels; the running average and its number of batches for inputs."""
        if site.role == "kernel":
            if self.clamp is not None:
                raise site.error("clamp=None (only inputs are clipped)", self.clamp)
            return {}
        different = 1 if self.scheme == "lst" else self.planes
        return {
            "scales": VariableSpec((different,), 0.0, trainable=False),
            "steps": VariableSpec((), 0.0, trainable=False),
        }

    def quantize(self, x, state: State, site: Site, training: bool = False, seed=None):
        """Weighted sum of signs; updates the running average of an input in training."""
        if site.role == "kernel":
            return maths.binarize(x, self._kernel_planes(x, site)), {}
        x, updates = self._clipped(x), {}
        if training:
            scales = self._training_scales(maths.rows(x, 0))
            if self.running != "off":
                updates = self._averaged(scales, state)
            if self.running == "train_and_eval":
                scales = ops.expand_dims(updates["scales"], 0)
        else:
            scales = self._inference_scales(x, state)
        return maths.binarize(x, maths.planes_of(scales, self.scheme, len(x.shape), 0)), updates

    def observe(self, x, state: State, site: Site) -> Updates:
        """Take the scales of a batch into the running average, whatever `running` says."""
        if site.role == "kernel":
            return {}
        return self._averaged(self._solve(maths.rows(self._clipped(x), 0)), state)

    def observed(self, site: Site) -> list[str]:
        """The running average, for inputs."""
        return [] if site.role == "kernel" else ["scales", "steps"]

    def widths(self, state: State, site: Site):
        """The number of planes; fixed."""
        return ops.convert_to_tensor(float(self.planes), "float32")

    def encode(self, w: np.ndarray, state: State, site: Site) -> packed.PackedTensor:
        """Signs of the current weights as codes, with scales solved from the same weights.

        Raises:
            ValueError: NaN or infinity in the weights.
        """
        x = ops.convert_to_tensor(finite_kernel(w, site))
        planes = self._kernel_planes(x, site)
        signs = [ops.convert_to_numpy(b) for b in maths.sign_bits(x, planes)]
        scales = np.stack([ops.convert_to_numpy(v).reshape(-1) for v in planes])
        if self.scheme == "lst":
            codes = signs[0].astype(np.uint16) + signs[1]
            zero, origin = np.ones(1, np.int32), np.zeros(1, np.float32)
            encoding = packed.Uniform(2 * scales[0], zero, origin)
        else:
            codes = np.zeros(site.shape, np.uint16)
            for positive in signs:
                codes = (codes << 1) | positive
            encoding = packed.Planes(2 * scales[::-1], -scales.sum(axis=0))
        return packed.PackedTensor(
            name=site.name,
            codes=codes.astype(np.uint16),
            bits=np.full(site.channels, self.planes, np.int32),
            channel_axis=site.channel_axis % len(site.shape),
            encoding=encoding,
        )

    def grid(self, state: State, site: Site) -> packed.PlanesGrid:
        """The running average as a grid.

        Raises:
            ValueError: no batch was seen yet, or the average is not finite.
        """
        scales = np.asarray(state["scales"], np.float32)
        if not np.asarray(state["steps"]) > 0:
            raise site.error(
                "a running average of the input scales (calibrate, or train with "
                "running='eval_only' or 'train_and_eval')",
                "no batch seen yet",
            )
        if not np.isfinite(scales).all():
            raise site.error("finite running scales", scales)
        planes = np.repeat(scales, 2) if self.scheme == "lst" else scales
        free = packed.PlanesGrid(packed.frozen_copy(planes, np.float32))
        if self.clamp is None:
            return free
        # Residuals rise with x. So if the ends of the clip have the outermost codes, all beyond
        # have them too, and the clip can be left out: always so with 1 or 2 planes, but for
        # scales that reach the clamp itself.
        ends = free.codes(np.float32([-self.clamp, self.clamp]))
        if ends[0] == 0 and ends[1] == 2**free.bits - 1:
            return free
        return dataclasses.replace(free, lo=-float(self.clamp), hi=float(self.clamp))

    def _kernel_planes(self, x, site: Site) -> list:
        axis = None if self.granularity == "tensor" else site.channel_axis
        scales = self._solve(maths.rows(x, axis))
        return maths.planes_of(scales, self.scheme, len(x.shape), axis)

    def _solve(self, rows):
        # JAX without its 64-bit mode turns float64 into float32, with a warning on every request;
        # what becomes of a NumPy array tells without one.
        widest = ops.dtype(ops.convert_to_tensor(np.zeros((), np.float64)))
        return maths.solve(rows, self.scheme, self.k, self.subsample, widest)

    def _training_scales(self, rows):
        """Scales of each sample. Long ones are searched for: sorting them takes most of a step."""
        if self.subsample != 1 or not search.is_long(rows.shape):
            return self._solve(rows)
        if self.scheme in ("ls2", "lst"):
            return search.search(rows, self.scheme)
        return search.greedy(rows, self.planes)

    def _clipped(self, x):
        return x if self.clamp is None else maths.clamp(x, self.clamp)

    def _averaged(self, scales, state: State) -> Updates:
        average, steps = (ops.convert_to_tensor(state[name]) for name in ("scales", "steps"))
        average, steps = maths.average_scales(average, steps, scales, self.momentum, replicas.total)
        return {"scales": average, "steps": steps}

    def _inference_scales(self, x, state: State):
        """The average for every sample once there is one, else the scales of each sample."""
        rows = maths.rows(x, 0)
        average = ops.cast(state["scales"], x.dtype)
        return ops.cond(
            ops.convert_to_tensor(state["steps"]) > 0,
            lambda: ops.broadcast_to(average, (ops.shape(rows)[0], average.shape[0])),
            lambda: ops.cast(self._solve(rows), x.dtype),
        )
