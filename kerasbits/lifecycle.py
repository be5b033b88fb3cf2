"""What happens to the quantizers of a model between epochs: calibrate, adjust, freeze."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
from keras import ops

from kerasbits import sites
from kerasbits.packed import MAX_CODE_BITS
from kerasbits.quantizers.base import Updates
from kerasbits.sites import Place
from kerasbits.slots import forget, optimizers_of


def calibrate(model, data, steps: int | None = None, batch_size: int = 128) -> None:
    """Set the input ranges of a model from data, without training.

    Ranges start anew. Layers are observed in one pass, each seeing the quantized outputs of
    those before it.

    Args:
        model: a model with quantized inputs.
        data: an array; for several inputs a list or dictionary of arrays; or an iterable of
            batches `x` or `(x, y, ...)`.
        steps: number of batches at most; None takes all.
        batch_size: for arrays.

    Raises:
        ValueError: a model without quantizers; no batch came, or a batch holds NaN or infinity.
            The ranges are then as before.
    """
    _check_arguments(data, steps, batch_size)
    given = [p for p in sites.required_places(model, "calibrate") if p.role == "input"]
    sites.set_shares(model)
    found = [p for p in given if p.quantizer.observed(p.host.site)]
    before = [place.host.state() for place in found]
    for place in found:
        place.host.reset(names=place.quantizer.observed(place.host.site))
        place.host.observing = True
    try:
        count = 0
        batches = _batches(data, batch_size, len(getattr(model, "inputs", None) or [None]))
        for count, batch in enumerate(itertools.islice(batches, steps), 1):
            if not _finite(batch):
                raise ValueError(
                    f"calibrate: expected finite data, got NaN or inf in batch {count}"
                )
            model(batch, training=False)
        if not count:
            raise ValueError("calibrate: expected at least one batch of data, got none")
    except BaseException:
        for place, state in zip(found, before, strict=True):
            place.host.assign({n: state[n] for n in place.quantizer.observed(place.host.site)})
        raise
    finally:
        for place in found:
            place.host.observing = False


def adjust(model, optimizer=None) -> None:
    """Drop what became empty between epochs (BSQ: empty bit planes), exactly.

    The optimizer's memory of variables that were rewritten is set to zero, because it refers
    to values that are no longer there. Nothing is changed unless every quantizer can adjust.

    Args:
        model: with quantizers.
        optimizer: that trains the model in a loop of your own, or a list of several; None means
            the one that the model is compiled with.

    Raises:
        ValueError: a model without quantizers; NaN or infinity in the state of one, naming the
            layer.
    """
    found = sites.required_places(model, "adjust")
    optimizers = optimizers_of(model, optimizer, "adjust")
    updates = [p.quantizer.adjust(sites.finite_state(p.host), p.host.site) for p in found]
    _assign(model, optimizers, found, updates)


def freeze(model, optimizer=None) -> None:
    """Make the bits of every quantizer whole and final, and silence its loss. Idempotent.

    Weights and ranges can be trained on. Nothing is changed unless every quantizer can freeze.
    The optimizer's memory of variables that were rewritten is set to zero.

    Args:
        model: with quantizers.
        optimizer: that trains the model in a loop of your own, or a list of several; None means
            the one that the model is compiled with.

    Raises:
        ValueError: a model without quantizers; NaN or infinity in the state of one, naming the
            layer.

    Warns:
        UserWarning: kernels that are wider than `packed.MAX_CODE_BITS` now, so that files store
            them as floats.
    """
    found = sites.required_places(model, "freeze")
    optimizers = optimizers_of(model, optimizer, "freeze")
    updates = [p.quantizer.freeze(sites.finite_state(p.host), p.host.site) for p in found]
    changing = [p for p, new in zip(found, updates, strict=True) if _changes(p, new)]
    _assign(model, optimizers, found, updates)
    _warn_of_floats(changing, sum(p.role == "kernel" for p in found))


def _assign(model, optimizers: list, found: list[Place], updates: list[Updates]) -> None:
    """All updates were computed before, so that an error leaves the model as it was."""
    for place, new in zip(found, updates, strict=True):
        written = [v for v in place.host.assign(new) if v.trainable]
        for optimizer in optimizers:
            forget(model, optimizer, written)


def _changes(place: Place, updates: Updates) -> bool:
    state = place.host.state()
    return any(not np.array_equal(state[name], value) for name, value in updates.items())


def _warn_of_floats(frozen: list[Place], kernels: int) -> None:
    """Say which of the kernels that were just frozen are too wide for codes."""
    wide = [p.path for p in frozen if p.role == "kernel" and _width(p) > MAX_CODE_BITS]
    if wide:
        warnings.warn(
            f"freeze: {len(wide)} of {kernels} quantized kernels stay above {MAX_CODE_BITS} bits "
            f"({', '.join(wide[:3])}{', ...' if len(wide) > 3 else ''}). Files store them as "
            "float32, no smaller than before. Train longer before freezing, or give the method a "
            "higher strength or fewer max_bits, or quantize_model a higher rate",
            stacklevel=3,
        )


def _width(place: Place) -> float:
    return float(
        np.max(ops.convert_to_numpy(place.quantizer.widths(place.host.state(), place.host.site)))
    )


def _check_arguments(data, steps, batch_size) -> None:
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"calibrate: expected a batch_size of at least 1, got {batch_size!r}")
    if steps is not None and (not isinstance(steps, int) or steps < 1):
        raise ValueError(f"calibrate: expected at least 1 step, got {steps!r}")
    if isinstance(data, str) or not (hasattr(data, "__iter__") or hasattr(data, "shape")):
        raise ValueError(
            f"calibrate: expected an array or an iterable of batches, got {type(data).__name__}"
        )


def _batches(data, batch_size: int, inputs: int = 1):
    """Batches of an array, of a dictionary or list of arrays (one an input), or as they come."""
    if hasattr(data, "shape"):
        for start in range(0, len(data) if data.shape else 0, batch_size):
            yield data[start : start + batch_size]
    elif isinstance(data, dict):
        parts = [_batches(array, batch_size) for array in data.values()]
        for batch in zip(*parts, strict=True):
            yield dict(zip(data, batch, strict=True))
    elif inputs > 1 and _one_array_an_input(data, inputs):
        yield from map(list, zip(*(_batches(array, batch_size) for array in data), strict=True))
    else:
        for batch in data:
            yield batch[0] if isinstance(batch, tuple) else batch


def _one_array_an_input(data, inputs: int) -> bool:
    arrays = isinstance(data, list | tuple) and all(hasattr(a, "shape") for a in data)
    return arrays and len(data) == inputs


def _finite(batch) -> bool:
    if isinstance(batch, dict):
        batch = list(batch.values())
    try:
        arrays = [np.asarray(a) for a in (batch if isinstance(batch, list | tuple) else [batch])]
        return all(np.isfinite(a).all() for a in arrays)
    except (TypeError, ValueError):
        raise ValueError(
            f"calibrate: expected batches of numbers, got {type(batch).__name__}"
        ) from None
