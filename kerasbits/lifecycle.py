"""What happens to the quantizers of a model between epochs: calibrate, adjust, freeze."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from kerasbits import sites
from kerasbits.sites import Place


def calibrate(model, data, steps: int | None = None, batch_size: int = 128) -> None:
    """Set the input ranges of a model from data, without training.

    Ranges start anew. Layers are observed in one pass, each seeing the quantized outputs of
    those before it.

    Args:
        model: a model with quantized inputs.
        data: an array, or an iterable of batches `x` or `(x, y, ...)`.
        steps: number of batches at most; None takes all.
        batch_size: for arrays.

    Raises:
        ValueError: no batch came, or a batch holds NaN or infinity. The ranges are then as before.
    """
    sites.set_shares(model)
    found = [p for p in sites.places(model, "input") if p.quantizer.observed(p.host.site)]
    before = [place.host.state() for place in found]
    for place in found:
        place.host.reset(names=place.quantizer.observed(place.host.site))
        place.host.observing = True
    try:
        count = 0
        for count, batch in enumerate(itertools.islice(_batches(data, batch_size), steps), 1):
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
        written = [v for v in place.host.assign(updates) if v.trainable]
        for slot in _slots(model, written):
            slot.assign(np.zeros(slot.shape, slot.dtype))


def _slots(model, variables) -> Iterator:
    """Optimizer variables that belong to `variables`.

    Keras names them `<path>_<slot>`, where one path may begin another (`range`, `range_unit`), and
    layers of nested models may share a path. So a slot belongs to the longest path that fits, and
    slots of one name to the variables of that path in their order.
    """
    optimizer = getattr(model, "optimizer", None)
    if not variables or optimizer is None or not getattr(optimizer, "built", False):
        return
    owners = collections.defaultdict(list)
    for variable in model.trainable_variables:
        owners[variable.path.replace("/", "_") + "_"].append(variable)
    wanted = {id(variable) for variable in variables}
    counts: collections.Counter[str] = collections.Counter()
    for slot in optimizer.variables:
        stem = max((s for s in owners if slot.name.startswith(s)), key=len, default=None)
        if stem is None:
            continue
        owner = owners[stem][counts[slot.name] % len(owners[stem])]
        counts[slot.name] += 1
        if id(owner) in wanted and slot.shape == owner.shape:
            yield slot


def _batches(data, batch_size: int):
    if hasattr(data, "shape") and hasattr(data, "__getitem__"):
        for start in range(0, len(data), batch_size):
            yield data[start : start + batch_size]
        return
    for batch in data:
        yield batch[0] if isinstance(batch, tuple) else batch


def _finite(batch) -> bool:
    if isinstance(batch, dict):
        batch = list(batch.values())
    arrays = batch if isinstance(batch, list) else [batch]
    return all(np.isfinite(np.asarray(a)).all() for a in arrays)
