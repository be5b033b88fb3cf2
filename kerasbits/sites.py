"""Walk over the quantized layers of a model, whatever kind of host holds them.

A layer counts as quantized if it has `hosts`, a dictionary from role to a `kerasbits.host.Host`. If
it stands for a layer of another class, `quantized_as` is the name of that class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kerasbits.quantizers.base import Quantizer


@dataclasses.dataclass(frozen=True)
class Place:
    """A quantizer at work: the path of its layer, its role there, and its host."""

    path: str
    role: str
    layer: Any
    host: Any

    @property
    def quantizer(self) -> Quantizer:
        """The method at work here."""
        return self.host.quantizer


def walk(model, enter: Callable[[Any], bool] = lambda layer: True) -> Iterator[tuple[str, Any]]:
    """All innermost layers of a model with their paths, `block/conv` for nested models.

    A layer that is used several times is yielded once.

    Args:
        model: any model.
        enter: whether to look inside a layer that has layers, instead of yielding it.
    """
    seen: set[int] = set()

    def visit(layer, path):
        if id(layer) in seen:
            return
        seen.add(id(layer))
        inner = not hasattr(layer, "hosts") and (layer is model or enter(layer))
        children = list(sublayers(layer)) if inner else []
        if not children and path:
            yield path, layer
        for child in children:
            yield from visit(child, f"{path}/{child.name}" if path else child.name)

    yield from visit(model, "")


def sublayers(layer) -> Iterator[Any]:
    """Layers directly inside a layer or model."""
    if hasattr(layer, "layers"):
        yield from layer.layers
        return
    for value in vars(layer).values():
        for item in value if isinstance(value, list | tuple) else (value,):
            if _is_layer(item):
                yield item


def _is_layer(item) -> bool:
    # The class is asked: a variable of a strategy looks up unknown names in its value, and some
    # are reduced over all workers for it, which hangs or fails if one worker alone asks.
    kind = type(item)
    return hasattr(kind, "compute_output_shape") and hasattr(kind, "trainable_weights")


def places(model, role: str | None = None) -> Iterator[Place]:
    """All quantizers of a model, in layer order; of one role if given."""
    for path, layer in walk(model):
        for found, host in getattr(layer, "hosts", {}).items():
            if host.site is not None and role in (None, found):
                yield Place(path, found, layer, host)


def required_places(model, where: str) -> list[Place]:
    """All quantizers of a model; `where` begins the message.

    Raises:
        ValueError: no model, one without quantizers, or one whose layers have no weights yet.
    """
    check_quantized(model, where)
    found = list(places(model))
    if not found and any(hasattr(x, "hosts") and not x.built for _, x in walk(model)):
        raise ValueError(
            f"{where}: expected a model with weights, got '{model.name}' before it was built; "
            "call it on data once"
        )
    if not found:
        raise _without_quantizers(model, where)
    return found


def check_quantized(model, where: str) -> None:
    """Whether a model has quantized layers, built or not; `where` begins the message.

    Raises:
        ValueError: no model, or one without them.
    """
    if not hasattr(model, "trainable_weights"):
        raise ValueError(f"{where}: expected a model, got {type(model).__name__}")
    if not is_quantized(model):
        raise _without_quantizers(model, where)


def _without_quantizers(model, where: str) -> ValueError:
    return ValueError(
        f"{where}: expected a model with quantizers, got '{model.name}', which has none; use the "
        "model that quantize_model returned, which is a copy"
    )


def is_quantized(layer) -> bool:
    """Whether a layer is a quantized one, or has one in it."""
    return hasattr(layer, "hosts") or any(hasattr(inner, "hosts") for _, inner in walk(layer))


def finite_state(host) -> dict[str, np.ndarray]:
    """The state of a host.

    Raises:
        ValueError: NaN or infinity in it, naming the layer: whole numbers must never be made of
            a training that diverged.
    """
    state = host.state()
    for name, value in state.items():
        if not np.isfinite(value).all():
            raise host.site.error(f"finite values in '{name}'", "NaN or infinity")
    return state


def set_shares(model) -> None:
    """Tell each site its weight among all sites of its method.

    Losses that are sums over the network (BitPruning, BSQ, Bayesian Bits) need it. Called by
    `quantize_model`, `calibrate` and the callbacks; call it yourself after building a model
    directly from quantized layers, or each site counts as if it were the whole network.
    """
    kinds: dict[type, list[Place]] = {}
    for place in places(model):
        kinds.setdefault(type(place.quantizer), []).append(place)
    for found in kinds.values():
        sites = [place.host.site for place in found]
        for place in found:
            place.host.set_share(float(place.quantizer.share(place.host.site, sites)))
