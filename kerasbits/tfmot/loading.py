"""Load tf_keras models with layers of kerasbits in them."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import tensorflow_model_optimization as tfmot
import tf_keras

from kerasbits import sites


def load_model(
    path: str | pathlib.Path,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
) -> tf_keras.Model:
    """A model from an .h5 or .keras file or a SavedModel folder, quantized, annotated or plain.

    `tf_keras.models.load_model` also does, once `kerasbits.tfmot` is imported; this knows the
    layers of tfmot, too, and tells quantizers their shares of the network.

    Args:
        path: of the file or folder.
        custom_objects: classes of your own by name.
        compile: whether to compile the model as it was, with the state of its optimizer.

    Raises:
        ValueError, OSError: as tf_keras.

    Example:
        model = load_model("model.h5")
    """
    with tfmot.quantization.keras.quantize_scope(dict(custom_objects or {})):
        model = tf_keras.models.load_model(path, compile=compile)
    for place in sites.places(model):
        place.host.read_share()
    return model
