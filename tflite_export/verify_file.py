"""Does a packed file as a whole compute what the model computes? Sample by sample.

Two machines that round differently may put a value that lies on the border between two input
codes on different sides. Such a tie is no error, but it changes what follows. So inputs of layers
and outputs of the file are compared on the samples in which no tie went the other way before.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kerasbits.packed import FloatGrid
from tflite_export.blob import read_blob
from tflite_export.collect import PackedModel
from tflite_export.native import open_op
from tflite_export.padding import as_read
from tflite_export.verification import (
    TOLERANCE,
    Verification,
    VerificationError,
    first,
    relative_error,
    tie_limit,
)
from tflite_export.written import WrittenFile

SAME_RUN = 1e-6
"""Largest relative difference between a layer run inside a file and alone, both by our kernels."""

BATCH = 16
"""Samples run at once in files that take any number."""


class Layers:
    """The layers of a packed file as they stand in it, by path."""

    def __init__(self, packed: PackedModel, written: WrittenFile, blobs: dict[str, bytes]):
        self.packed, self.written = packed, written
        self.layers = {path: read_blob(blob) for path, blob in blobs.items()}
        self.ops = {path: open_op(blob) for path, blob in blobs.items()}

    def flips(self, runner, uses, batch: slice, clean: np.ndarray) -> tuple[np.ndarray, int]:
        """Codes of each sample that differ in the last run, (samples,), and how many there are.

        Args:
            runner: has just run the batch, tensors kept.
            uses: of each layer in the model.
            batch: samples that were run.
            clean: (samples,) which of them met no tie in an earlier layer; updated here.
        """
        total, codes = np.zeros(len(clean), np.int64), 0
        left = {path: list(range(len(uses))) for path, uses in self.written.inputs.items()}
        for path, x in self._in_order(uses, batch):
            tensors = [runner.tensor(t).reshape(x.shape) for t in self.written.inputs[path]]
            use = min(left[path], key=lambda use: np.abs(tensors[use] - x).sum(dtype=np.float64))
            left[path].remove(use)
            flips = _flips(path, self.layers[path].grid, x, tensors[use], clean)
            output = runner.tensor(self.written.outputs[path][use])
            self._verify_run(path, tensors[use], output)
            total, codes = total + flips, codes + x.size
            clean &= flips == 0
        return total, codes

    def _in_order(self, uses, batch: slice) -> Iterator[tuple[str, np.ndarray]]:
        """The uses of the layers as the model runs them, with their inputs as the file reads them.

        The file may run those of a shared layer in another order, so its tensors are told apart
        by what is in them; a file that really mixes them up has other outputs.
        """
        done = dict.fromkeys(uses, 0)
        for call in self.packed.graph.calls:
            path = call.path
            if path in uses:
                x = uses[path][done[path]].x[batch]
                done[path] += 1
                yield path, as_read(self.packed.layers[path], self.layers[path], x)

    def _verify_run(self, path: str, x: np.ndarray, found: np.ndarray) -> None:
        """The operator in the file gives what the layer gives for the same input."""
        expected = self.ops[path].run(x)
        found = found.reshape(expected.shape)
        differs = ~(relative_error(expected, found) <= SAME_RUN)
        if differs.any():
            at = first(differs)
            raise VerificationError(
                f"layer '{path}': in the whole file its output differs at {at}: the layer alone "
                f"gives {expected[at]!r}, the file {found[at]!r}"
            )


def verify_file(layers: Layers, runner, inputs, uses, outputs) -> Verification:
    """Run the file over all inputs and compare it with the model.

    Args:
        layers: of the file.
        runner: of the file, keeping tensors.
        inputs: of the model, in whole batches of the file.
        uses: of each layer in the model.
        outputs: of the model.

    Raises:
        VerificationError: naming the layer or output that differs.
    """
    count = len(inputs[0])
    clean = np.ones(count, bool)
    ties = codes = 0
    found = []
    step = runner.batch or BATCH
    for start in range(0, count, step):
        batch = slice(start, start + step)
        found.append(runner.run([a[batch] for a in inputs]))
        flips, compared = layers.flips(runner, uses, batch, clean[batch])
        ties, codes = ties + int(flips.sum()), codes + compared
    found = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    error, difference = compare_outputs(outputs, found, clean)
    return Verification(error, difference, ties, codes, count, int(clean.sum()))


def _flips(path: str, grid, x: np.ndarray, ours: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Codes of each sample that differ between model and file, checked while it is clean."""
    if isinstance(grid, FloatGrid):
        return np.zeros(len(x), np.int64)
    differs = grid.codes(x) != grid.codes(ours)
    far = differs & (grid.border_distance(x) > tie_limit(x))
    far |= ~np.isfinite(ours)  # NaN has a code, too
    far &= clean.reshape(-1, *[1] * (x.ndim - 1))
    if far.any():
        at = first(far)
        raise VerificationError(
            f"layer '{path}': in the whole file its input differs at {at}: the model gives "
            f"{x[at]!r}, the file {ours[at]!r}"
        )
    return differs.reshape(len(x), -1).sum(axis=1)


def compare_outputs(
    outputs: list[np.ndarray], found: list[np.ndarray], clean: np.ndarray
) -> tuple[float, float]:
    """Largest relative difference over the clean samples, and largest absolute one over all.

    Raises:
        VerificationError: NaN or inf in an output of the file, or a clean sample that differs by
            more than `TOLERANCE`.
    """
    max_error = max_difference = 0.0
    for index, expected in enumerate(outputs):
        ours = found[index].reshape(expected.shape)
        if not np.isfinite(ours).all():
            raise VerificationError(
                f"output {index}: expected finite values, got {ours[first(~np.isfinite(ours))]} "
                f"at {first(~np.isfinite(ours))}"
            )
        difference = np.abs(ours - expected).reshape(len(expected), -1).max(axis=1, initial=0)
        scale = np.abs(expected).reshape(len(expected), -1).max(axis=1, initial=0)
        relative = difference / np.maximum(scale, 1e-6)
        max_difference = max(max_difference, float(difference.max(initial=0)))
        error = float(relative[clean].max(initial=0))
        max_error = max(max_error, error)
        if error > TOLERANCE:
            sample = int(np.argmax(np.where(clean, relative, 0)))
            raise VerificationError(
                f"output {index}, sample {sample}: the file differs by {error:.2e} of the "
                f"largest value {scale[sample]:.4g}, more than {TOLERANCE:.0e}, though every layer "
                "agrees; the layers that are not quantized must differ"
            )
    return max_error, max_difference
