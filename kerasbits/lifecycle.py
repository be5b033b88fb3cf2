"""What happens to the quantizers of a model between epochs: calibrate, adjust, freeze."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from kerasbits import sites
from kerasbits.sites import Place
from kerasbits.slots import forget


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
        ValueError: no batch came, or a batch holds NaN or infinity. The ranges are then as before.
    """
    _check_arguments(model, data, steps, batch_size)
    sites.set_shares(model)
    found = [p for p in sites.places(model, "input") if p.quantizer.observed(p.host.site)]
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


def adjust(model) -> None:
    """Drop what became empty between epochs (BSQ: empty bit planes), exactly.

    The optimizer's memory of variables that were rewritten is set to zero, because it refers
    to values that are no longer there. Nothing is changed unless every quantizer can adjust.

    Raises:
        ValueError: NaN or infinity in the state of a quantizer, naming the layer.
    """
    _update(model, lambda p: p.quantizer.adjust(sites.finite_state(p.host), p.host.site))


def freeze(model) -> None:
    """Make the bits of every quantizer whole and final, and silence its loss. Idempotent.

    Weights and ranges can be trained on. Nothing is changed unless every quantizer can freeze.

    Raises:
        ValueError: NaN or infinity in the state of a quantizer, naming the layer.
    """
    _update(model, lambda p: p.quantizer.freeze(sites.finite_state(p.host), p.host.site))


def _update(model, compute: Callable[[Place], dict]) -> None:
    """Compute all updates first, so that an error leaves the model as it was; then assign."""
    pending = [(place, compute(place)) for place in sites.places(model)]
    for place, updates in pending:
        forget(model, [v for v in place.host.assign(updates) if v.trainable])


def _check_arguments(model, data, steps, batch_size) -> None:
    if not hasattr(model, "trainable_weights"):
        raise ValueError(f"calibrate: expected a model, got {type(model).__name__}")
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
