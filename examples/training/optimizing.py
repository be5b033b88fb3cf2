"""Learning rates, optimizers and losses, in either Keras."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

from keras import ops

NAME = "optimizer"
"""Of every optimizer: a fixed one, because the names of its variables begin with it."""

KERNEL = "kernel"
"""How the names of kernels end. Weight decay takes from kernels alone."""


def schedule(keras: ModuleType, kind: str, peak: float, steps: int, warmup: int = 0) -> Any:
    """The learning rate as a function of the step, a `LearningRateSchedule` of `keras`.

    Formula: `peak * min(1, (step + 1) / (warmup + 1)) * fall(done)`, with
    `done = (step - warmup) / (steps - warmup)` clipped to [0, 1]. `fall` is 1 for "constant",
    `(1 + cos(pi * done)) / 2` for "cosine", and for "step" 1, from a half on 0.1, from three
    quarters on 0.01.

    Args:
        keras: `keras` or `tf_keras`.
        kind: "constant", "cosine" or "step".
        peak: the largest learning rate.
        steps: of the phase.
        warmup: steps in which the rate rises.
    """

    class Schedule(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            step = ops.cast(step, "float32")
            done = ops.clip((step - warmup) / max(steps - warmup, 1), 0.0, 1.0)
            return peak * ops.minimum(1.0, (step + 1) / (warmup + 1)) * fall(kind, done)

        def get_config(self):
            return {"kind": kind, "peak": peak, "steps": steps, "warmup": warmup}

    return Schedule()


def fall(kind: str, done):
    """Part of the learning rate that is left when the part `done` of a phase is over."""
    if kind == "cosine":
        return (1 + ops.cos(math.pi * done)) / 2
    if kind == "step":
        return ops.where(done >= 0.75, 0.01, ops.where(done >= 0.5, 0.1, 1.0))
    return ops.ones_like(done)


def optimizer(
    keras: ModuleType,
    kind: str,
    rate: Any,
    model: Any,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
) -> Any:
    """An optimizer, built for the trainable variables of a model.

    Args:
        keras: `keras` or `tf_keras`.
        kind: "adam" or "sgd".
        rate: a number or a schedule.
        model: a built model of that Keras.
        momentum: of "sgd".
        weight_decay: part of the kernels that each step takes away, times the learning rate.
    """
    options = {"name": NAME, "weight_decay": weight_decay or None}
    if kind == "adam":
        found = keras.optimizers.Adam(rate, **options)
    else:
        found = keras.optimizers.SGD(rate, momentum=momentum, **options)
    if weight_decay:
        others = [v for v in model.trainable_variables if not _is_kernel(v)]
        found.exclude_from_weight_decay(var_list=others)
    found.build(model.trainable_variables)
    return found


def _is_kernel(variable) -> bool:
    return variable.name.partition(":")[0].endswith(KERNEL)


def compile_model(keras: ModuleType, model: Any, optimizer: Any, jit_compile: bool) -> None:
    """Compile a classifier that gives logits.

    The accuracy is a weighted metric, so that padding of weight 0 does not count.
    """
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
        jit_compile=jit_compile,
    )
