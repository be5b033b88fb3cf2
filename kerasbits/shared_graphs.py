"""One TensorFlow function for all places that quantize alike.

A network quantizes dozens of tensors in a few ways. What a graph costs before its first step, in
Python and in TensorFlow's passes over it, goes by its nodes. So the formulas of a quantizer are
traced once for each way, with their gradient, and each place has one node for them and one for the
gradient. Small kernels of all shapes go one way, if the method is `shapeless`.

Anywhere else these functions call the quantizer: eagerly, on other backends, on one of several
replicas, which exchange statistics, and where a quantizer asks for what places differ in, as
messages of errors do, which then name the layer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys

import keras

from kerasbits import replicas
from kerasbits.maths.fused import is_small
from kerasbits.quantizers.base import Quantizer, Site, State


def apply(quantizer: Quantizer, x, state: State, site: Site, training: bool, seed=None):
    """`quantizer.apply`; a shared graph draws from `seed` in every training step, needed or not."""
    if _is_sharable(quantizer, x):
        drawn = [] if seed is None or not training else [seed.next()]
        with contextlib.suppress(_Asked):
            if _is_shapeless(quantizer) and site.role == "kernel" and is_small(x):
                return _of_any_shape(quantizer, x, dict(state), site, training, drawn)
        with contextlib.suppress(_Asked):
            return _quantizing(quantizer, _kind(site, _AnySite), training)(x, dict(state), drawn)
    return quantizer.apply(x, state, site, training=training, seed=seed)


def _is_shapeless(quantizer: Quantizer) -> bool:
    """As the very class says that defines `quantize`; one that inherits it may ask for shapes."""
    defining = next(c for c in type(quantizer).__mro__ if "quantize" in vars(c))
    return vars(defining).get("shapeless", False)


def _of_any_shape(quantizer: Quantizer, x, state: State, site: Site, training: bool, drawn: list):
    """`quantizer.apply` for a kernel, by a graph for all that have as many axes."""
    tf = sys.modules["tensorflow"]
    # Without names, which would make each place another.
    states, seeds = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), (state, drawn))
    axes = (None,) * len(x.shape)
    kind = dataclasses.replace(_kind(site, _AnySite), shape=axes)
    function = _quantizing(quantizer, kind, training, _AnyShape)
    graph = function.get_concrete_function(tf.TensorSpec(axes, x.dtype), states, seeds)
    y, updates = graph(x, state, drawn)
    y.set_shape(x.shape)
    return y, updates


def loss(quantizer: Quantizer, state: State, site: Site):
    """`quantizer.loss`; the share of the site is a tensor.

    Most losses know nothing of a kernel but the state, whose shapes are few.
    """
    if type(quantizer).loss is not Quantizer.loss and _is_sharable(quantizer, site.share):
        for hidden in (_AnyShapeWithShare, _AnySiteWithShare):
            with contextlib.suppress(_Asked):
                return _losing(quantizer, _kind(site, hidden), hidden)(dict(state), site.share)
    return quantizer.loss(state, site)


def _is_sharable(quantizer: Quantizer, tensor) -> bool:
    tf = sys.modules.get("tensorflow")
    if tf is None or not tf.is_tensor(tensor) or tf.executing_eagerly() or replicas.several():
        return False
    try:
        hash(quantizer)
    except TypeError:  # a field of it is a list, say
        return False
    return True


def _kind(site: Site, hidden: type[_AnySite]) -> Site:
    """The site without what it hides: what differs, and hardly a formula asks for."""
    nothing, names = Site(), {*hidden.hidden, "share"}
    return dataclasses.replace(site, **{name: getattr(nothing, name) for name in names})


class _Asked(Exception):
    """A quantizer asked for what differs from place to place."""


class _AnySite(Site):
    """All sites of a kind."""

    hidden = ("name", "macs", "share")

    def __getattribute__(self, attribute: str):
        if attribute in type(self).hidden:
            raise _Asked(attribute)
        return super().__getattribute__(attribute)


class _AnySiteWithShare(_AnySite):
    hidden = ("name", "macs")


class _AnyShape(_AnySite):
    hidden = ("name", "macs", "share", "size", "channels")  # all but the number of axes


class _AnyShapeWithShare(_AnySite):
    hidden = ("name", "macs", "shape")


@functools.cache
def _quantizing(quantizer: Quantizer, site: Site, training: bool, hidden=_AnySite):
    any_site = hidden(**vars(site))

    def quantize(x, state, drawn):
        seed = _Drawn(drawn[0]) if drawn else None
        y, updates = quantizer.apply(x, state, any_site, training=training, seed=seed)
        # Else the gradients of minima, say, would be part of the graph, and ask it for their axes:
        # XLA then takes all that the forward graph is given, batch and variables, for known.
        return y, {name: keras.ops.stop_gradient(value) for name, value in updates.items()}

    return _one_node(quantize)


@functools.cache
def _losing(quantizer: Quantizer, site: Site, hidden: type[_AnySite]):
    def loss(state, share):
        return quantizer.loss(state, hidden(**{**vars(site), "share": share}))

    return _one_node(loss)


def _one_node(function):
    # TensorFlow would put the body in the place of each call, and nothing were won.
    attributes = {"_noinline": True}
    tf = sys.modules["tensorflow"]
    return tf.function(function, autograph=False, experimental_attributes=attributes)


class _Drawn(keras.random.SeedGenerator):
    """A seed that was drawn outside, where its state lives."""

    def __init__(self, seed):
        self.seed = seed

    def next(self, ordered: bool = True):
        """The seed."""
        return self.seed
