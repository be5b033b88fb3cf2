"""Does a file compute what the model computes? Layer by layer, then as a whole.

Two machines that round differently may put a value that lies on the border between two input
codes on different sides. Such a tie is no error, but it changes what follows. So each layer is
checked on the *model's* inputs, where codes may differ at ties only and outputs must agree; and
the file as a whole is checked on the samples in which no tie went the other way before.
"""

from __future__ import annotations

import dataclasses
import os

import keras
import numpy as np
from keras import ops

from kerasbits.packed import FloatGrid
from tflite_export.collect import Collected, PackedModel
from tflite_export.interpreter import Interpreter
from tflite_export.layer import PackedLayer
from tflite_export.native import NativeOp
from tflite_export.written import WrittenFile

TOLERANCE = 1e-4
"""Largest difference of outputs, relative to the largest output of the sample or layer."""

TIE_TOLERANCE = 1e-5
"""Distance from a border, relative to the largest input, that float rounding can bridge: the
model sums in float32, about 1e-7 an operation, and the file in exact integers."""


class VerificationError(ValueError):
    """A file does not compute what its model computes."""


@dataclasses.dataclass(frozen=True)
class Verification:
    """What was compared.

    Args:
        max_error: largest relative difference of an output: of each layer on the model's
            inputs, and of the file on the samples without ties.
        max_difference: largest absolute difference of an output, over all samples.
        ties: input codes that rounding put on the other side of a border.
        codes: input codes compared.
        samples: number of samples; `clean_samples` of them have no tie.
    """

    max_error: float
    max_difference: float
    ties: int
    codes: int
    samples: int
    clean_samples: int


def compare(
    packed: PackedModel, written: WrittenFile, path: str | os.PathLike, sample
) -> Verification:
    """Compare the file at `path` with the model on `sample` (an array or a list of arrays).

    Raises:
        VerificationError: naming the first layer that differs, with both values.
    """
    runner = Interpreter(path, keep_tensors=True)
    inputs = _checked(sample, runner)
    fed, outputs = _run_model(packed, inputs)
    worst = 0.0
    for layer_path, layer in written.layers.items():
        _verify_kernel(packed.layers[layer_path], layer)
        op = NativeOp(written.blobs[layer_path])
        for x in fed[layer_path]:
            worst = max(worst, _verify_layer(packed.layers[layer_path], layer, op, x))
    result = _verify_file(written, runner, inputs, fed, outputs)
    return dataclasses.replace(result, max_error=max(worst, result.max_error))


def _checked(sample, runner: Interpreter) -> list[np.ndarray]:
    """The sample as float32 arrays, repeated to whole batches if the file has a fixed batch."""
    given = [sample] if hasattr(sample, "shape") else keras.tree.flatten(sample)
    try:
        inputs = [np.asarray(a, np.float32) for a in given]
    except (TypeError, ValueError):
        raise ValueError(f"sample: expected arrays of numbers, got {type(sample)}") from None
    runner.check(inputs)
    if not all(np.isfinite(a).all() for a in inputs):
        raise ValueError("sample: expected finite sample inputs, got NaN or inf")
    if runner.batch is None:
        return inputs
    count = -(-len(inputs[0]) // runner.batch) * runner.batch
    return [np.resize(a, (count, *a.shape[1:])) for a in inputs]


def _run_model(packed: PackedModel, inputs):
    """The inputs of each quantized layer (one a use) and the outputs of the model."""
    fed: dict[str, list[np.ndarray]] = {path: [] for path in packed.layers}

    def run(call, args, kwargs):
        if call.path in fed:
            fed[call.path].append(ops.convert_to_numpy(args[0]))
        return call.run(call.layer, args, kwargs)

    tensors = [ops.convert_to_tensor(a) for a in inputs]
    outputs = packed.graph.replay(tensors, run)
    return fed, [ops.convert_to_numpy(y) for y in keras.tree.flatten(outputs)]


def _verify_kernel(collected: Collected, layer: PackedLayer) -> None:
    """The decoded codes are the kernel that the model uses in inference."""
    host = collected.layer.hosts.get("kernel")
    if host is None:
        return
    used = ops.convert_to_numpy(host(ops.convert_to_tensor(collected.layer.kernel) * 1.0))
    decoded = layer.weight.decode()
    top = np.abs(used).max(initial=0)
    # Four units in the last place of the largest level: compilers may fuse or reorder.
    bad = ~(np.abs(used - decoded) <= 4 * np.spacing(np.float32(top)))
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise VerificationError(
            f"layer '{collected.path}': kernel differs at {at}: the model uses {used[at]!r}, the "
            f"file {decoded[at]!r}"
        )


def _verify_layer(collected: Collected, layer: PackedLayer, op: NativeOp, x: np.ndarray) -> float:
    """One layer, fed with the model's input; its largest relative difference."""
    host = collected.layer.hosts.get("input")
    tied = np.zeros(x.shape, bool)
    if host is not None:
        quantized = ops.convert_to_numpy(host(ops.convert_to_tensor(x)))
        tied = _verify_codes(collected.path, layer, x, quantized, op.input_codes(x))
    # Where a tie fell differently, outputs legitimately differ; feed the op the model's choice.
    if tied.any():
        x = np.where(tied, quantized, x)
    y = collected.layer(ops.convert_to_tensor(x))
    if collected.batch_norm is not None:
        y = collected.batch_norm(y)
    y = np.clip(ops.convert_to_numpy(y), layer.act_min, layer.act_max)
    found = np.clip(op.run(x), layer.act_min, layer.act_max)
    found = _activated(collected, found)
    error = np.abs(y - found) / max(np.abs(y).max(initial=0), 1e-6)
    if not (error <= TOLERANCE).all():
        at = tuple(int(i) for i in np.argwhere(~(error <= TOLERANCE))[0])
        raise VerificationError(
            f"layer '{collected.path}': output differs at {at}: the model gives {y[at]!r}, the "
            f"file {found[at]!r}"
        )
    return float(error.max(initial=0))


def _activated(collected: Collected, y: np.ndarray) -> np.ndarray:
    """`y` after the activation of the layer, which the file may run as an operator of its own."""
    return ops.convert_to_numpy(collected.layer.activation(ops.convert_to_tensor(y)))


def _verify_codes(path, layer, x, quantized, codes) -> np.ndarray:
    """Where the codes differ; an error unless each such place is a tie."""
    grid = layer.grid
    if isinstance(grid, FloatGrid):
        return np.zeros(x.shape, bool)
    step = np.abs(grid.values(codes) - quantized)
    differs = step > 1e-5 * max(np.abs(quantized).max(initial=0), 1e-30)
    far = differs & (grid.border_distance(x) > _tie_limit(x))
    if far.any():
        at = tuple(int(i) for i in np.argwhere(far)[0])
        raise VerificationError(
            f"layer '{path}': input code differs at {at} for x = {x[at]!r}: the model rounds to "
            f"{quantized[at]!r}, the file to {grid.values(codes)[at]!r}"
        )
    return differs


def _tie_limit(x: np.ndarray) -> float:
    return TIE_TOLERANCE * float(np.abs(x).max(initial=0))


def _verify_file(written, runner, inputs, fed, outputs) -> Verification:
    """The file as a whole, sample by sample."""
    count = len(inputs[0])
    clean = np.ones(count, bool)
    ties = codes = 0
    found = []
    step = runner.batch or 1
    for start in range(0, count, step):
        batch = slice(start, start + step)
        found.append(runner.run([a[batch] for a in inputs]))
        for name, tensors in written.inputs.items():
            for use, tensor in enumerate(tensors):
                x = fed[name][use][batch]
                ours = runner.tensor(tensor).reshape(x.shape)
                flips = _flips(name, written.layers[name], x, ours, clean[batch])
                ties, codes = ties + int(flips.sum()), codes + x.size
                clean[batch] &= flips == 0
    return _compare_outputs(outputs, found, clean, ties, codes)


def _flips(path, layer, x, ours, clean: np.ndarray) -> np.ndarray:
    """Codes of each sample that differ between model and file, checked while it is clean."""
    grid = layer.grid
    if isinstance(grid, FloatGrid):
        return np.zeros(len(x), np.int64)
    differs = grid.codes(x) != grid.codes(ours)
    far = differs & (grid.border_distance(x) > _tie_limit(x))
    far &= clean.reshape(-1, *[1] * (x.ndim - 1))
    if far.any():
        at = tuple(int(i) for i in np.argwhere(far)[0])
        raise VerificationError(
            f"layer '{path}': in the whole file its input differs at {at}: the model gives "
            f"{x[at]!r}, the file {ours[at]!r}"
        )
    return differs.reshape(len(x), -1).sum(axis=1)


def _compare_outputs(outputs, found, clean, ties, codes) -> Verification:
    max_error = max_difference = 0.0
    for index, expected in enumerate(outputs):
        ours = np.concatenate([y[index] for y in found]).reshape(expected.shape)
        if not np.isfinite(ours).all():
            raise VerificationError(f"output {index}: expected finite values, got NaN or inf")
        difference = np.abs(ours - expected).reshape(len(expected), -1).max(axis=1, initial=0)
        scale = np.abs(expected).reshape(len(expected), -1).max(axis=1, initial=0)
        relative = difference / np.maximum(scale, 1e-6)
        max_difference = max(max_difference, float(difference.max(initial=0)))
        max_error = max(max_error, float(relative[clean].max(initial=0)))
        if max_error > TOLERANCE:
            sample = int(np.argmax(np.where(clean, relative, 0)))
            raise VerificationError(
                f"output {index}, sample {sample}: the file differs by {max_error:.2e} of the "
                f"largest value {scale[sample]:.4g}, more than {TOLERANCE:.0e}, though every layer "
                "agrees; the layers that are not quantized must differ"
            )
    return Verification(max_error, max_difference, ties, codes, len(clean), int(clean.sum()))


__all__ = ["Verification", "VerificationError", "compare"]
