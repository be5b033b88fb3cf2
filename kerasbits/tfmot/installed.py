"""What `kerasbits.tfmot` needs, checked before anything else is imported."""

from __future__ import annotations

import importlib.util

import keras

PACKAGES = ("tensorflow", "tensorflow_model_optimization", "tf_keras")


def check() -> None:
    """Whether the packages of the extra are there, and Keras 3 computes with TensorFlow.

    Raises:
        ImportError: a package is missing, or another backend is set.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"kerasbits.tfmot needs {', '.join(missing)}: pip install 'kerasbits[tfmot]'"
        )
    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            "kerasbits.tfmot works with the TensorFlow backend of Keras 3, whose operations its "
            f"quantizers use, got '{keras.backend.backend()}': set KERAS_BACKEND=tensorflow before "
            "keras is imported"
        )


check()
