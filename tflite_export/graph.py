"""The calls of a Keras model in order, nested models inlined, so that they can be replayed.

One trace serves every stage of the export: collecting looks at who uses what, baking replays
the calls with plain layers on symbolic inputs, verification replays them on real arrays. Layers
that only do something in training are left out.
"""

from __future__ import annotations

import collections
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import keras

_IDENTITIES = (
    keras.layers.ActivityRegularization,
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
"""Layers that return their input in inference."""


@dataclasses.dataclass(frozen=True)
class Ref:
    """A value of the graph: an input, or an output of a call."""

    index: int


@dataclasses.dataclass(frozen=True)
class Call:
    """One use of a layer or operation.

    Args:
        path: of the layer, `block/conv` inside nested models; a layer that is reached by several
            paths has the first.
        layer: of the traced model.
        args, kwargs: what it is called with; `Ref`s stand for tensors.
        outputs: structure of `Ref`s.
    """

    path: str
    layer: Any
    args: tuple
    kwargs: dict
    outputs: Any

    def run(self, layer: Any, args: tuple, kwargs: dict) -> Any:
        """Call `layer` in this place as `model.predict` does: never in training mode.

        Keras overrides the argument too. Augmentation layers train unless told otherwise.
        """
        if "training" in inspect.signature(layer.call).parameters:
            kwargs = {**kwargs, "training": False}
        return layer(*args, **kwargs)


@dataclasses.dataclass(frozen=True)
class Graph:
    """A model as a list of calls.

    Args:
        inputs: the inputs of the model, in the order of `model.inputs`.
        calls: in the order of execution.
        outputs: those of the model, in the order of `model.outputs`; one alone without a list.
    """

    inputs: Any
    calls: tuple[Call, ...]
    outputs: Any

    def uses(self) -> collections.Counter[Ref]:
        """How often each value is used, by calls and as an output."""
        count = collections.Counter(_refs(self.outputs))
        for call in self.calls:
            count.update(_refs((call.args, call.kwargs)))
        return count

    def replay(self, inputs: Any, run: Callable[[Call, tuple, dict], Any]) -> Any:
        """Execute the calls with `run(call, args, kwargs)` and return the outputs."""
        values = dict(zip(_refs(self.inputs), keras.tree.flatten(inputs), strict=True))
        fill = _substitution(values)
        for call in self.calls:
            result = run(call, fill(call.args), fill(call.kwargs))
            pairs = zip(_refs(call.outputs), keras.tree.flatten(result), strict=True)
            values.update(pairs)
        return fill(self.outputs)


def trace(model: keras.Model) -> Graph:
    """The graph of a Sequential or functional model.

    Raises:
        ValueError: if the model is neither.
    """
    return _Tracer().model(model, "")


def is_traceable(layer: Any) -> bool:
    """Whether a layer is a model with a graph of its own."""
    return isinstance(layer, keras.Sequential) or (
        isinstance(layer, keras.Model) and type(layer).__name__ == "Functional"
    )


def _is_identity(layer: Any) -> bool:
    """Whether a layer returns its one input in inference. Subclasses may do more."""
    linear = keras.activations.linear
    activation = type(layer) is keras.layers.Activation and layer.activation is linear
    return activation or type(layer) in _IDENTITIES


class _Tracer:
    """Numbers the values of a model while walking through it."""

    def __init__(self):
        self.count = 0
        self.paths: dict[int, str] = {}  # of the layers met so far
        self.composites: dict[int, keras.Model] = {}  # the graphs of layers of several steps

    def new(self, _=None) -> Ref:
        self.count += 1
        return Ref(self.count - 1)

    def model(self, model: keras.Model, path: str) -> Graph:
        if not is_traceable(model) or not model.built:
            raise ValueError(
                f"model '{model.name}': expected a built Sequential or functional model, got "
                f"{type(model).__name__}; wrap the layers of a subclass in a functional model"
            )
        symbolic, recorded = _record(model)
        refs = {id(t): self.new() for t in keras.tree.flatten(symbolic.inputs)}
        inputs = [refs[id(t)] for t in keras.tree.flatten(symbolic.inputs)]
        calls: list[Call] = []
        for layer, args, kwargs, result in recorded:
            here = f"{path}/{layer.name}" if path else layer.name
            args, kwargs = _positional(layer, *_to_refs((args, kwargs), refs))
            inner_model = self.inside(layer)
            if inner_model is not None:
                inner, outputs = self.nested(inner_model, here, args)
                calls.extend(inner)
            elif _is_identity(layer):
                outputs = args[0]
            else:
                outputs = keras.tree.map_structure(self.new, result)
                here = self.paths.setdefault(id(layer), here)
                calls.append(Call(here, layer, args, kwargs, outputs))
            flat = zip(keras.tree.flatten(result), _refs(outputs), strict=True)
            refs.update({id(tensor): ref for tensor, ref in flat})
        outputs = _to_refs(symbolic.outputs, refs)
        single = len(model.outputs) == 1
        return Graph(inputs, tuple(calls), outputs[0] if single else outputs)

    def inside(self, layer) -> keras.Model | None:
        """The model whose calls stand for a call of `layer`; None if it is a single step."""
        if is_traceable(layer):
            return layer
        if not hasattr(layer, "as_functional"):
            return None
        if id(layer) not in self.composites:
            self.composites[id(layer)] = layer.as_functional()
        return self.composites[id(layer)]

    def nested(self, model, path, args):
        """Calls of a nested model with its inputs replaced by what it is called with."""
        graph = self.model(model, path)
        given = dict(zip(graph.inputs, _refs(args), strict=True))
        fill = _substitution(given, keep=True)
        calls = [
            dataclasses.replace(c, args=fill(c.args), kwargs=fill(c.kwargs)) for c in graph.calls
        ]
        return calls, fill(graph.outputs)


def _record(model: keras.Model):
    """A symbolic copy of a model and its calls `(layer of the model, args, kwargs, result)`.

    The copy has layers of its own, because calling the given ones would change them.
    """
    model = keras.Model(model.inputs, model.outputs, name=model.name)
    originals: dict[int, Any] = {}
    copies: list[Any] = []  # keeps the copies alive, so that their ids stay theirs
    recorded: list[tuple] = []

    def clone(layer):
        copy = layer.__class__.from_config(layer.get_config())
        originals[id(copy)] = layer
        copies.append(copy)
        return copy

    def call(copy, *args, **kwargs):
        result = copy(*args, **kwargs)
        recorded.append((originals[id(copy)], args, kwargs, result))
        return result

    symbolic = keras.models.clone_model(model, clone_function=clone, call_function=call)
    return symbolic, recorded


def _positional(layer: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """The same arguments, the first one by position: `conv(inputs=x)` becomes `conv(x)`."""
    name = next(iter(inspect.signature(layer.call).parameters), None)
    if args or name not in kwargs:
        return args, kwargs
    return (kwargs[name],), {key: value for key, value in kwargs.items() if key != name}


def _refs(structure) -> list[Ref]:
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, Ref)]


def _to_refs(structure, refs):
    def replace(leaf):
        return refs[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf

    return keras.tree.map_structure(replace, structure)


def _substitution(values, keep: bool = False):
    def replace(leaf):
        if not isinstance(leaf, Ref):
            return leaf
        return values.get(leaf, leaf) if keep else values[leaf]

    return lambda structure: keras.tree.map_structure(replace, structure)
