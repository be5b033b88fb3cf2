"""Does a file compute what the model computes? Layer by layer, then as a whole.

`layers` checks codes and outputs of each packed layer alone, `whole_file` the file that
holds them. Files of builtin operators have no layers to run alone: there the layers are compared
with Keras inside of the file.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib

import keras
import numpy as np
from keras import ops

from tflite_export import flatbuffer, native
from tflite_export.blob.writer import read_blob
from tflite_export.collect import PackedModel
from tflite_export.contents.of_kbits import kbits_blobs
from tflite_export.in_numpy.runner import NumpyRunner
from tflite_export.interpreter import Interpreter
from tflite_export.kbits import container
from tflite_export.kbits.writer import write_kbits
from tflite_export.samples import given_inputs, random_inputs, whole_batches
from tflite_export.tflite_writer import packed_blobs
from tflite_export.verification.layers import verify_layer
from tflite_export.verification.recorder import Recorder
from tflite_export.verification.result import Verification, VerificationError, first
from tflite_export.verification.runs import CheckBlobs, CheckStock
from tflite_export.verification.tensors import Tensors
from tflite_export.verification.whole_file import verify_file
from tflite_export.written import WrittenFile

RANDOM_SAMPLES = 8
"""Random samples that a file is checked with; half as many beside a given sample."""


def compare(
    model: keras.Model,
    packed: PackedModel,
    written: WrittenFile,
    path: str | os.PathLike,
    sample=None,
) -> Verification:
    """Compare the file at `path` with the model on `sample` and on random inputs.

    Args:
        model: the Keras model.
        packed: what was collected from it.
        written: what a writer made of that.
        path: the file.
        sample: inputs, an array or a structure of arrays as the model takes it. Random inputs
            in its range are checked as well; only such of a normal distribution if None.

    Raises:
        VerificationError: naming the first layer that differs, with both values.
        ValueError: a sample that does not fit the model.
    """
    inputs = _inputs(model, packed, sample)
    path = pathlib.Path(path)
    data = path.read_bytes()
    blobs = file_blobs(data) if written.blobs else {}
    whole, runner = _runnable(model, packed, written, path)
    inputs = whole_batches(inputs, runner.batch)
    uses, outputs = _run_model(model, packed, inputs)
    if not blobs:
        tensors = Tensors(runner, data, rounded=True)
        return verify_file(packed, written, tensors, inputs, uses, outputs, CheckStock())
    worst = max(
        verify_layer(collected, blobs.get(name), uses[name])
        for name, collected in packed.layers.items()
    )
    if whole is written:
        in_file = {name: read_blob(blobs[name]) for name in packed.layers}
        whole = dataclasses.replace(written, layers=in_file, blobs=blobs)
    check = CheckBlobs(whole.blobs)
    result = verify_file(packed, whole, Tensors(runner), inputs, uses, outputs, check)
    return dataclasses.replace(result, max_error=max(worst, result.max_error))


def _runnable(model, packed, written: WrittenFile, path: pathlib.Path):
    """The file and what runs it.

    LiteRT runs packed layers by the C library only. Without that, the same graph as a .kbits file
    stands in for the file as a whole; the layers of the file itself run in NumPy.
    """
    if written.blobs and path.suffix != ".kbits" and not native.has_library():
        stand_in = write_kbits(model, packed)
        return stand_in, NumpyRunner(stand_in.data, keep_tensors=True)
    try:
        return written, Interpreter(path, keep_tensors=True)
    except ValueError as error:
        raise VerificationError(f"the file cannot be run: {error}") from None


def file_blobs(data: bytes) -> dict[str, bytes]:
    """The blobs of a file by layer path."""
    try:
        if data[4:8] == container.IDENTIFIER:
            return {path: blob for path, blob in kbits_blobs(container.read(data)) if path}
        return packed_blobs(flatbuffer.read(data))
    except ValueError as error:
        raise VerificationError(f"the file cannot be read: {error}") from None


def _inputs(model: keras.Model, packed: PackedModel, sample) -> list[np.ndarray]:
    """The given samples, then random ones."""
    if sample is None:
        return random_inputs(model, packed.graph, RANDOM_SAMPLES)
    given = given_inputs(model, sample)
    more = random_inputs(model, packed.graph, RANDOM_SAMPLES // 2, given)
    return [np.concatenate(pair) for pair in zip(given, more, strict=True)]


def _run_model(model: keras.Model, packed: PackedModel, inputs):
    """The uses of each quantized layer and the outputs of the model."""
    recorder = Recorder(packed)
    tensors = [ops.convert_to_tensor(a) for a in inputs]
    packed.graph.replay(tensors, recorder)
    # The model itself, not the replay: a graph that was traced wrongly must be found out, too.
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    outputs = model(keras.tree.pack_sequence_as(structure, tensors), training=False)
    outputs = [ops.convert_to_numpy(y) for y in keras.tree.flatten(outputs)]
    for index, y in enumerate(outputs):
        if not np.isfinite(y).all():
            raise VerificationError(
                f"output {index}: expected a model that gives finite values, got "
                f"{y[first(~np.isfinite(y))]} for sample {first(~np.isfinite(y))[0]}"
            )
    return recorder.uses, outputs


__all__ = ["Verification", "VerificationError", "compare"]
