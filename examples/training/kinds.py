"""The two kinds of Keras that a training can use."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any

import keras

import kerasbits as kb


@dataclasses.dataclass(frozen=True)
class Kind:
    """What differs between training in Keras 3 and in tf_keras.

    Args:
        name: of the program, in errors.
        keras: the module of layers, optimizers, losses and callbacks.
        quantize_model: `kerasbits.quantize_model` for its models.
        callbacks: module with `AdjustBits`, `LogBits` and `Progress`.
        load_model: reads a saved model, not compiled.
        jit_compile: whether steps are compiled by XLA if the settings do not say.
    """

    name: str
    keras: ModuleType
    quantize_model: Callable[..., Any]
    callbacks: ModuleType
    load_model: Callable[[str], Any]
    jit_compile: bool = False


def keras_3() -> Kind:
    """Keras 3, on any backend."""

    def load_model(path: str):
        return keras.models.load_model(path, compile=False)

    # JAX would run operation by operation without it.
    jit = keras.backend.backend() == "jax"
    return Kind("train", keras, kb.quantize_model, kb.callbacks, load_model, jit)


def tf_keras() -> Kind:
    """tf_keras with the quantizers of tfmot.

    Raises:
        ImportError: the packages of the extra `tfmot` are missing.
        ValueError: Keras 3 does not run on TensorFlow.
    """
    # Here, because tf.keras means tf_keras in a process that has imported tfmot; and in this order,
    # because kerasbits.tfmot says what is missing.
    from kerasbits import tfmot  # isort: skip
    import tf_keras as module

    def load_model(path: str):
        return tfmot.load_model(path)

    return Kind("train_tfmot", module, tfmot.quantize_model, tfmot.callbacks, load_model)
