"""From a frozen model to packed layers: codes, grids, biases, folded batch norms."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasbits import sites
from kerasbits.packed import FloatGrid
from tflite_export.graph import Call, Graph, Ref, trace
from tflite_export.layer import PackedLayer


@dataclasses.dataclass(frozen=True)
class Collected:
    """A quantized layer of the model and what becomes of it.

    Args:
        path: of the layer.
        layer: the Keras layer.
        packed: the same as numbers, without what the file's form of it takes over from its
            neighbours: a clamp behind it, zero padding in front of it.
        batch_norm: the batch norm folded into it, or None.
    """

    path: str
    layer: Any
    packed: PackedLayer
    batch_norm: Any


@dataclasses.dataclass(frozen=True)
class PackedModel:
    """A model as a graph of calls, with the packed form of its quantized layers by path.

    `folded` holds the paths of batch norms that are part of the layer before them.
    """

    graph: Graph
    layers: dict[str, Collected]
    folded: frozenset[str]


def collect(model: keras.Model) -> PackedModel:
    """Pack the quantized layers of a frozen model. The model is not changed.

    Raises:
        ValueError: a model without quantized layers, bits that are not frozen, ranges that were
            never set, NaN in a weight; the message names the layer.
    """
    graph = trace(model)
    folds = _foldable(graph)
    layers = {}
    for call in graph.calls:
        if getattr(call.layer, "hosts", None) and call.path not in layers:
            norm = folds.get(call.path)
            norm_layer = None if norm is None else norm.layer
            packed = pack_layer(call.path, call.layer, norm_layer)
            layers[call.path] = Collected(call.path, call.layer, packed, norm_layer)
    reached = {id(call.layer) for call in graph.calls}
    for place in sites.places(model):
        if id(place.layer) not in reached:
            raise ValueError(
                f"layer '{place.path}': expected quantized layers in Sequential and functional "
                "models only, got one inside a wrapper or a custom layer, which cannot be packed"
            )
    if not layers:
        raise ValueError(
            f"model '{model.name}': expected at least one quantized layer, got none; "
            "see kerasbits.quantize_model"
        )
    return PackedModel(graph, layers, frozenset(norm.path for norm in folds.values()))


def _foldable(graph: Graph) -> dict[str, Call]:
    """Batch norms that follow a quantized layer and nothing else, by the path of that layer.

    A layer that is used several times must be followed by the same batch norm every time.
    """
    uses = graph.uses()
    calls: dict[str, list[Call]] = {}
    readers: dict[Any, Call] = {}
    for call in graph.calls:
        calls.setdefault(call.path, []).append(call)
        if len(call.args) == 1 and isinstance(call.args[0], Ref):
            readers[call.args[0]] = call
    folds = {}
    for path, own in calls.items():
        if not getattr(own[0].layer, "hosts", None):
            continue
        behind = [readers.get(c.outputs) if uses[c.outputs] == 1 else None for c in own]
        norm = behind[0]
        if norm is None or any(c is None or c.path != norm.path for c in behind):
            continue
        if len(calls[norm.path]) == len(own) and _can_fold(own[0].layer, norm.layer):
            folds[path] = norm
    return folds


def _can_fold(layer, norm) -> bool:
    if type(norm) is not keras.layers.BatchNormalization:
        return False
    last = norm.axis in (-1, norm.input_spec.ndim - 1)
    return last and layer.activation is keras.activations.linear


def pack_layer(path: str, layer, batch_norm=None) -> PackedLayer:
    """The packed form of one quantized layer, a batch norm folded into it."""
    host = layer.hosts.get("kernel")
    if host is not None:
        _check_frozen(path, host)
    weight = dataclasses.replace(layer.exported_kernel(), name=path)
    bias, multiplier = layer.exported_bias(), None
    if batch_norm is not None:
        multiplier, bias = fold_batch_norm(bias, batch_norm)
    try:
        geometry = dataclasses.asdict(layer.geometry())
    except ValueError as error:
        raise ValueError(f"layer '{path}' cannot be exported: {error}") from None
    return PackedLayer(
        weight=weight, grid=_grid(path, layer), bias=bias, multiplier=multiplier, **geometry
    )


def _grid(path: str, layer):
    host = layer.hosts.get("input")
    if host is None:
        return FloatGrid()
    _check_frozen(path, host)
    state = host.state()
    if float(state.get("seen", 1.0)) < 0.5:
        raise ValueError(
            f"layer '{path}', input: expected a range learned from data, got none; call "
            "kerasbits.calibrate(model, data) or train the model (if that was done, its inputs "
            "were all zero)"
        )
    return layer.input_grid()


def _check_frozen(path: str, host) -> None:
    fixed = host.state().get("fixed_bits")
    if fixed is not None and np.min(fixed) < 0:
        raise ValueError(
            f"layer '{path}', {host.site.role}: expected frozen bits, got bits that still move; "
            "call kerasbits.freeze(model) first"
        )


def fold_batch_norm(bias, norm) -> tuple[np.ndarray, np.ndarray]:
    """Multiplier and bias that do what the batch norm does in inference, computed in float64.

    Formula: `multiplier = gamma / sqrt(variance + epsilon)`,
    `bias' = (bias - mean) * multiplier + beta`. The codes of the kernel are not touched, so a
    negative gamma needs no special case.
    """
    variance = _array(norm.moving_variance).astype(np.float64)
    mean = _array(norm.moving_mean).astype(np.float64)
    gamma = 1.0 if norm.gamma is None else _array(norm.gamma).astype(np.float64)
    beta = 0.0 if norm.beta is None else _array(norm.beta).astype(np.float64)
    multiplier = gamma / np.sqrt(variance + norm.epsilon)
    shifted = (0.0 if bias is None else bias.astype(np.float64)) - mean
    return multiplier.astype(np.float32), (shifted * multiplier + beta).astype(np.float32)


def _array(variable) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(variable), np.float32)
