"""A learned clipping threshold, shared by the methods that learn one.

The threshold is `beta = range * range_unit`. The trainable `range` starts at 1 and is learned
relative to `range_unit`, the first estimate, so that one learning rate suits every layer. The
estimate is the largest magnitude of the kernel, or of the observed inputs. As only `range` is
trainable, an input's range can be set in a forward pass on backends that forbid assigning
trainable variables there.

State:
    range: trainable, () or (C,), no unit.
    range_unit: () or (C,), in values.
    signed: (), 1 for a grid on `[-beta, beta]`, 0 for `[0, beta]`.
    seen: (), inputs only; 0 until a batch with a value other than 0 was observed.
"""

from __future__ import annotations

import numpy as np
from keras import ops

from kerasbits import replicas
from kerasbits.quantizers.base import Site, State, Updates, VariableSpec

MIN_RANGE = 2.0**-10
"""Smallest `range`, relative to the first estimate."""

MIN_THRESHOLD = 1e-20
"""Smallest threshold, in values. Data below it count as all zero, and divisions stay finite: the
step of 16 bits is far above the smallest float. An untrained deep network has inputs of 1e-10."""

OBSERVED = ("range_unit", "seen", "signed")
"""Names of the state of an input that `observe_range` sets."""


def range_variables(
    site: Site, signed: bool | None = None, granularity: str = "tensor"
) -> dict[str, VariableSpec]:
    """Variables of a learned range.

    Args:
        site: kernel or input.
        signed: whether the grid has negative values; None asks the data: a kernel is signed if
            it has a negative value (or only zeros), an input once it had a negative value.
        granularity: "tensor", or "channel" for one range for each output channel of a kernel.

    Raises:
        ValueError: granularity "channel" for an input.
    """
    if granularity == "channel" and site.role != "kernel":
        raise site.error("granularity 'tensor', as an input has one scale", repr(granularity))
    shape = (site.channels,) if granularity == "channel" else ()
    specs = {"range": VariableSpec(shape, 1.0, trainable=True, min=MIN_RANGE)}
    if site.role == "kernel":
        axes = site.reduced_axes if granularity == "channel" else None
        sign = _kernel_signed if signed is None else float(signed)
        specs["range_unit"] = VariableSpec(
            shape, lambda w: _kernel_unit(w, axes, signed), trainable=False
        )
        specs["signed"] = VariableSpec((), sign, trainable=False)
    else:
        specs["range_unit"] = VariableSpec(shape, 1.0, trainable=False)
        specs["signed"] = VariableSpec((), float(bool(signed)), trainable=False)
        specs["seen"] = VariableSpec((), 0.0, trainable=False)
    return specs


def _kernel_signed(w: np.ndarray) -> np.float32:
    """Kernels that start at zero are signed: nothing says that they will not grow both ways."""
    return np.float32(np.any(w < 0) or not np.any(w))


def _kernel_unit(w: np.ndarray, axes, signed: bool | None) -> np.ndarray:
    """Largest magnitude; where that is 0 the largest of the kernel, and 1 if all is 0.

    A unit of 0 would hold the threshold at 0 for ever, whatever the kernel becomes.
    """
    magnitude = np.abs(w) if signed is not False else np.maximum(w, 0)
    unit = np.max(magnitude, axis=axes, initial=0.0)
    overall = np.max(unit, initial=0.0)
    spare = overall if overall > MIN_THRESHOLD else 1.0
    return np.where(unit > MIN_THRESHOLD, unit, spare).astype(np.float32)


def observe_range(x, state: State, signed: bool | None = None) -> Updates:
    """Estimate of an input's range after seeing the batch `x`.

    Formula: `range_unit = max(range_unit, max|x| / range)`, from the batch alone while `seen` is
    0. So the threshold is the largest magnitude observed, also after `range` was trained.

    A batch of zeros, or with NaN or infinity, changes nothing. No gradient flows.

    Args:
        x: batch of inputs, any shape; on several replicas a part of the batch.
        state: of the input.
        signed: as in `range_variables`. False looks at positive values only.
    """
    x = ops.stop_gradient(ops.convert_to_tensor(x))
    scale = ops.maximum(ops.stop_gradient(ops.cast(state["range"], x.dtype)), MIN_RANGE)
    unit, seen = (ops.cast(state[name], x.dtype) for name in ("range_unit", "seen"))
    before = seen > 0.5
    top = ops.max(x) if signed is False else ops.max(ops.abs(x))
    broken = ops.cast(ops.any(ops.logical_not(ops.isfinite(x))), x.dtype)
    negative = ops.cast(ops.min(x) < 0, x.dtype)
    top, broken, negative = replicas.largest(top, broken, negative)
    useful = ops.logical_and(top > MIN_THRESHOLD, broken < 0.5)
    known = ops.where(before, ops.maximum(unit, top / scale), top / scale)
    updates = {
        "range_unit": ops.where(useful, known, unit),
        "seen": ops.where(useful, ops.ones_like(seen), seen),
    }
    now = ops.cast(state["signed"], x.dtype)
    if signed is None:
        found = ops.where(before, ops.maximum(now, negative), negative)
        now = ops.where(useful, found, now)
    return {**updates, "signed": now}


def current_range(state: State, dtype="float32"):
    """The threshold `beta = range * range_unit`, at least `MIN_THRESHOLD`; () or (C,).

    Gradient: `range_unit` to `range` where the threshold is above the minimum, else 0.
    """
    beta = ops.cast(state["range"], dtype) * ops.stop_gradient(ops.cast(state["range_unit"], dtype))
    return ops.maximum(beta, ops.cast(MIN_THRESHOLD, dtype))


def along_channels(value, site: Site):
    """Reshape a value for each output channel, (C,), to broadcast against the kernel."""
    if len(value.shape) == 0:
        return value
    shape = [1] * len(site.shape)
    shape[site.channel_axis] = -1
    return ops.reshape(value, shape)


def check_observed(state: State, site: Site) -> None:
    """Raise ValueError if the range of an input is not known yet."""
    if not float(np.asarray(state["seen"])) > 0.5:
        raise site.error(
            "an input range, from training or `kerasbits.calibrate` with data that is not all zero",
            "none observed",
        )
