"""Files made of a trained model, and how well models and files classify."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from datasets import Dataset, Source

from training.settings import Settings

SAMPLE = 256
"""Training images that an exported file is verified with."""


def check_possible() -> None:
    """Make sure that files can be written and run, before anything is trained for them.

    Raises:
        ImportError: a package of the extra `export` is missing.
    """
    try:
        import tensorflow  # noqa: F401

        import tflite_export  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "export: expected the packages of the extra 'export' (pip install "
            f"'kerasbits[export]'), got: {error}"
        ) from error


def export(model: Any, settings: Settings, data: Dataset) -> Any:
    """Write the file that the settings ask for, verified against the model: an `ExportResult`.

    Args:
        model: frozen, of either Keras.
        settings: with `export`, `profile`, `activations` and `narrowest`.
        data: for the sample to verify with.

    Raises:
        ValueError: a model that cannot be exported so, or a file that differs from it.
        OSError: the file cannot be written.
    """
    import tflite_export  # here and below, because training alone does not need it

    sample = data.train.images(np.arange(min(SAMPLE, len(data.train))))
    return tflite_export.export(
        model,
        settings.export,
        profile=settings.profile,
        sample=sample,
        activations=settings.activations,
        narrowest=settings.narrowest,
    )


def accuracy(predict: Callable[[np.ndarray], Any], source: Source, batch_size: int) -> float:
    """Part of the images whose largest logit is that of their label, from 0 to 1.

    Args:
        predict: logits, (n, classes), of images, (n, h, w, c).
        source: images and labels.
        batch_size: images at once.
    """
    right = 0
    for start in range(0, len(source), batch_size):
        indices = np.arange(start, min(start + batch_size, len(source)))
        logits = np.asarray(predict(source.images(indices)))
        right += int(np.sum(logits.argmax(-1) == source.labels[indices]))
    return right / len(source)


def model_accuracy(model: Any, source: Source, batch_size: int) -> float:
    """`accuracy` of a model."""
    return accuracy(model.predict_on_batch, source, batch_size)


def file_accuracy(path: str, source: Source, batch_size: int) -> float:
    """`accuracy` of an exported file.

    Raises:
        OSError: it cannot be read.
        ValueError: it cannot be run.
    """
    import tflite_export

    return accuracy(tflite_export.Interpreter(path).predict, source, batch_size)
