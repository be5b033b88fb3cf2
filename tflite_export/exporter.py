"""Export a frozen model to one file that runs."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import secrets

import keras
import numpy as np

from kerasbits import sites
from tflite_export.collect import collect
from tflite_export.tflite_writer import write_packed
from tflite_export.verify import Verification, compare
from tflite_export.written import WrittenFile

PROFILES = ("packed",)
"""Profiles that exist: `packed` keeps every learned width, run by our delegate."""


@dataclasses.dataclass(frozen=True)
class LayerResult:
    """A packed layer in the file: its path, operator, mean bits a weight, and bytes."""

    name: str
    op: str
    bits: float
    code_bytes: int
    blob_bytes: int


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What was written.

    Args:
        path: of the file.
        file_bytes: size of the file.
        weight_bytes: bytes of the kernels in it: packed codes, and kernels that stayed float.
        layers: the packed layers.
        verification: what was compared with the model; None if that was switched off.
    """

    path: pathlib.Path
    file_bytes: int
    weight_bytes: int
    layers: tuple[LayerResult, ...]
    verification: Verification | None

    @property
    def max_error(self) -> float | None:
        """Largest relative difference from the model, of a layer or of a sample without ties."""
        return None if self.verification is None else self.verification.max_error


def export(
    model: keras.Model,
    path: str | os.PathLike,
    profile: str = "packed",
    sample=None,
    verify: bool = True,
) -> ExportResult:
    """Write a frozen model to a .tflite file with packed weights, and check it.

    The file appears under its name only when it is complete and verified; on any error an
    older file of that name stays as it was. The same model gives the same bytes.

    Args:
        model: frozen, see `kerasbits.freeze`. It is not changed.
        path: of the file, ending in .tflite.
        profile: "packed".
        sample: inputs to verify with, an array or a list of arrays. Random ones if None.
        verify: compare the file with the model (see `tflite_export.verify`).

    Raises:
        ValueError: a model that cannot be exported, naming the layer; an unknown profile.
        VerificationError: the file does not compute what the model computes.
        OSError: the path cannot be written.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"export: expected a Keras 3 model, got {type(model).__name__}")
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"export: expected a path, got {path!r}")
    path = pathlib.Path(path)
    if path.suffix != ".tflite":
        raise ValueError(f"expected a path ending in .tflite, got '{path}'")
    if profile not in PROFILES:
        raise ValueError(f"expected a profile among {PROFILES}, got {profile!r}")
    with _unfinished(path) as temporary:
        model = _in_float32(model)
        packed = collect(model)
        written = write_packed(model, packed)
        temporary.write_bytes(written.data)
        checked = None
        if verify:
            inputs = _random(model) if sample is None else sample
            checked = compare(packed, written, temporary, inputs)
        os.replace(temporary, path)
    return _result(path, written, checked)


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


class _unfinished:
    """A file beside `path` that disappears unless it is renamed; fails early if it cannot be."""

    def __init__(self, path: pathlib.Path):
        self.folder, self.stem = path.parent, path.stem

    def __enter__(self) -> pathlib.Path:
        if not self.folder.is_dir():
            raise FileNotFoundError(f"folder '{self.folder}': expected an existing folder")
        self.path = self.folder / f".{self.stem}-{secrets.token_hex(6)}.tflite"
        self.path.open("xb").close()  # with the permissions that any new file gets
        return self.path

    def __exit__(self, *_):
        self.path.unlink(missing_ok=True)


def _random(model: keras.Model, count: int = 8) -> list[np.ndarray]:
    """Random inputs; an unknown axis gets 32 elements."""
    generator = np.random.default_rng(0)
    shapes = [[n or 32 for n in t.shape[1:]] for t in keras.tree.flatten(model.inputs)]
    return [generator.standard_normal([count, *s]).astype(np.float32) for s in shapes]


def _result(path: pathlib.Path, written: WrittenFile, checked) -> ExportResult:
    layers = tuple(
        LayerResult(
            name,
            layer.op,
            float(np.mean(layer.weight.bits)),
            written.stored[name].code_bytes,
            written.stored[name].total_bytes,
        )
        for name, layer in written.layers.items()
    )
    weight_bytes = sum(layer.code_bytes for layer in layers) + written.float_bytes
    return ExportResult(path, len(written.data), weight_bytes, layers, checked)
