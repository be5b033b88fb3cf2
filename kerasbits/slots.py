"""What an optimizer remembers of a variable, in Keras 3 and in tf_keras."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from keras import ops

AVERAGE = "average"
"""Slot of the running means of the variables themselves (`use_ema`)."""


def optimizers_of(model, given: Any, where: str) -> list[Any]:
    """The optimizers that train a model: the given ones, or else the one it is compiled with.

    Args:
        model: compiled or not, of either Keras.
        given: an optimizer, a list of them, or None.
        where: begins the message.

    Raises:
        ValueError: something else is given.
    """
    if given is None:
        compiled = getattr(model, "optimizer", None)
        return [] if compiled is None else [compiled]
    found = list(given) if isinstance(given, list | tuple) else [given]
    for optimizer in found:
        if not hasattr(optimizer, "variables") or not hasattr(optimizer, "learning_rate"):
            raise ValueError(f"{where}: expected a Keras optimizer, got {optimizer!r}")
    return found


def forget(model, optimizer: Any, variables: Sequence[Any]) -> None:
    """Set an optimizer's memory of variables that were rewritten to zero; means start anew.

    Args:
        model: of either Keras.
        optimizer: that trains it.
        variables: trained ones of the model.
    """
    if not variables:
        return
    wanted = {id(variable) for variable in variables}
    find = _legacy_slots if hasattr(optimizer, "get_slot_names") else _slots
    for name, slot, owner in find(optimizer, model.trainable_variables):
        if id(owner) in wanted and tuple(slot.shape) == tuple(owner.shape):
            slot.assign(owner * 1.0 if name == AVERAGE else ops.zeros(slot.shape, slot.dtype))


def _slots(optimizer, variables) -> Iterator[tuple[str, Any, Any]]:
    """Name of a slot, its variable, and the model's variable that it belongs to.

    Keras 3 names slots `<path>_<slot>` with `_` for each `/`, tf_keras `<slot>/<name>`, where one
    path may be a part of another (`range`, `range_unit`), and layers of nested models may share a
    path. So a slot belongs to the longest path that fits, and slots of one name to the variables of
    that path in their order.
    """
    owners = collections.defaultdict(list)
    for variable in variables:
        owners[_stem(variable)].append(variable)
    counts: collections.Counter[str] = collections.Counter()
    for slot in optimizer.variables:
        stem = max((s for s in owners if _fits(slot, s)), key=len, default=None)
        if stem is None:
            continue
        owner = owners[stem][counts[slot.name] % len(owners[stem])]
        counts[slot.name] += 1
        yield _rest(slot, stem), slot, owner


def _stem(variable) -> str:
    """What the names of a variable's slots begin with in Keras 3, and end with in tf_keras."""
    if hasattr(variable, "path"):
        return variable.path.replace("/", "_") + "_"
    return "/" + variable.name


def _fits(slot, stem: str) -> bool:
    return slot.name.endswith(stem) if stem.startswith("/") else slot.name.startswith(stem)


def _rest(slot, stem: str) -> str:
    """The name of the slot alone."""
    if stem.startswith("/"):
        return slot.name.removesuffix(stem).rpartition("/")[2]
    return slot.name.removeprefix(stem)


def _legacy_slots(optimizer, variables) -> Iterator[tuple[str, Any, Any]]:
    """As `_slots`, of `tf_keras.optimizers.legacy`, which know the owners."""
    for name in optimizer.get_slot_names():
        for variable in variables:
            with contextlib.suppress(KeyError):  # not trained yet
                yield name, optimizer.get_slot(variable, name), variable
