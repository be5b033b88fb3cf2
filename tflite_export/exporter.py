"""Export a frozen model to one file that runs."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import keras

from kerasbits import sites
from tflite_export.collect import collect
from tflite_export.kbits.writer import write_kbits
from tflite_export.loading import in_keras3
from tflite_export.result import ExportResult, result_of
from tflite_export.stock.writer import write_stock
from tflite_export.tflite_writer import write_packed
from tflite_export.unfinished import unfinished
from tflite_export.verification.compare import compare

PROFILES = ("packed", "stock")
"""`packed` keeps every learned width, run by our library; `stock` runs in every unmodified
TFLite interpreter, in the types that TFLite has."""

ACTIVATIONS = ("float", "int8")
"""Types of what flows between the layers of a stock file."""

NARROWEST = (2, 4, 8)
"""Bits of the narrowest type that a stock file may store weights in."""

SUFFIXES = (".tflite", ".kbits")
"""Files that exist: a TFLite model, or ours for the C runtime."""


def export(
    model: Any,
    path: str | os.PathLike,
    profile: str = "packed",
    sample=None,
    verify: bool = True,
    activations: str = "float",
    narrowest: int = 2,
) -> ExportResult:
    """Write a frozen model to a file, and check it.

    The file appears under its name only when it is complete and verified; whatever happens
    before, an older file of that name stays as it was. The same model gives the same bytes.

    Args:
        model: frozen, see `kerasbits.freeze`; of Keras 3, or of tf_keras, which is exported through
            its Keras 3 twin (`kerasbits.tfmot.to_keras3`). It is not changed.
        path: of the file, ending in .tflite, or in .kbits for the C runtime.
        profile: "packed" keeps every learned width and needs our library; "stock" runs in every
            unmodified interpreter (.tflite only).
        sample: inputs to verify with, an array or a structure of arrays as the model takes it.
            Random inputs are checked in any case. With `activations="int8"` it also sets ranges
            of tensors that no quantizer has seen.
        verify: compare the file with the model (see `tflite_export.verification.compare`).
        activations: "float", or "int8" for a stock file that computes in integers.
        narrowest: 2, 4 or 8: bits of the narrowest type that a stock file stores weights in.
            Wider types load in older runtimes and run faster (docs/stock.md).

    Raises:
        ValueError: a model that cannot be exported, naming the layer; unknown or conflicting
            options; a sample that does not fit.
        VerificationError: the file does not compute what the model computes.
        OSError: the path cannot be written.

    Example:
        result = export(model, "m.tflite", sample=images[:64])
        print(result)
    """
    path = _checked(path, profile, activations, narrowest)
    with unfinished(path) as temporary:
        model = _in_float32(in_keras3(model))
        packed = collect(model)
        if path.suffix == ".kbits":
            written = write_kbits(model, packed)
        elif profile == "stock":
            written = write_stock(model, packed, activations, sample, narrowest)
        else:
            written = write_packed(model, packed)
        temporary.write(written.data)
        found = compare(model, packed, written, temporary.path, sample) if verify else None
        temporary.finish()
    return result_of(path, written, found)


def _checked(path, profile: str, activations: str, narrowest: int) -> pathlib.Path:
    """The path, if the arguments of `export` fit each other."""
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"export: expected a path, got {path!r}")
    path = pathlib.Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"expected a path ending in {' or '.join(SUFFIXES)}, got '{path}'")
    if profile not in PROFILES:
        raise ValueError(f"expected a profile among {PROFILES}, got {profile!r}")
    if profile != "packed" and path.suffix != ".tflite":
        raise ValueError(f"profile '{profile}': expected a path ending in .tflite, got '{path}'")
    if activations not in ACTIVATIONS:
        raise ValueError(f"expected activations among {ACTIVATIONS}, got {activations!r}")
    if activations != "float" and profile != "stock":
        raise ValueError(f"activations='{activations}': expected profile 'stock', got '{profile}'")
    if narrowest not in NARROWEST:
        raise ValueError(f"expected narrowest among {NARROWEST}, got {narrowest!r}")
    if narrowest != 2 and profile != "stock":
        raise ValueError(f"narrowest={narrowest}: expected profile 'stock', got '{profile}'")
    return path


def _in_float32(model: keras.Model) -> keras.Model:
    """The model itself, or under mixed precision a copy that computes in float32, as files do."""
    dtypes = {layer.compute_dtype or "" for _, layer in sites.walk(model)}
    if all(dtype == "float32" for dtype in dtypes if "float" in dtype):
        return model

    def clone(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.Layer):  # bare operations have no dtype
            config["dtype"] = "float32"
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    copy.set_weights(model.get_weights())
    return copy
