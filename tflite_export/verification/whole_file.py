"""Does a file as a whole compute what the model computes? Layer by layer on the file's own tensors.

Two machines that round differently may put a value that lies on the border between two input
codes on different sides. Such a tie is no error, but it changes what follows. So the model is
replayed with the file's numbers: behind each quantized layer it goes on with what the layer gave in
the file. Then every input of a layer, every layer, and every output is compared on its own, and
nothing else than a tie can hide behind a tie. Outputs are compared with those of the model alone,
too, for the samples whose codes are the same in every layer.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from kerasbits.packed import FloatGrid
from tflite_export.collect import Collected, PackedModel
from tflite_export.graph import Call
from tflite_export.layer import PackedLayer
from tflite_export.verification.padding import as_read
from tflite_export.verification.recorder import Use
from tflite_export.verification.result import (
    TOLERANCE,
    Verification,
    VerificationError,
    first,
    relative_error,
    tie_limit,
)
from tflite_export.verification.tensors import FileTensor, Tensors
from tflite_export.written import WrittenFile

BATCH = 16
"""Samples run at once in files that take any number."""

Check = Callable[[Collected, PackedLayer, np.ndarray, FileTensor], tuple[float, int]]
"""Compares the output of a layer in the file with what its input in the file must give; returns
the largest relative difference, and the largest one in codes."""


def verify_file(
    packed: PackedModel,
    written: WrittenFile,
    tensors: Tensors,
    inputs: list[np.ndarray],
    uses: dict[str, list[Use]],
    outputs: list[np.ndarray],
    check: Check,
) -> Verification:
    """Run the file over all inputs and compare it with the model.

    Args:
        packed: what was collected from the model.
        written: what the file holds.
        tensors: of the file, ready to run.
        inputs: of the model, in whole batches of the file.
        uses: of each layer in the model.
        outputs: of the model.
        check: of one layer, by the kind of file.

    Raises:
        VerificationError: naming the layer or output that differs.
    """
    step, found, followers = tensors.batch or BATCH, [], []
    for start in range(0, len(inputs[0]), step):
        batch = [a[start : start + step] for a in inputs]
        found.append(tensors.run(batch))
        follower = Follower(packed, written, tensors, uses, check, slice(start, start + step))
        followed = packed.graph.replay([ops.convert_to_tensor(a) for a in batch], follower)
        _compare_followed(followed, found[-1], start)
        followers.append(follower)
    clean = np.concatenate([f.clean for f in followers])
    found = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    steps = max(f.max_steps for f in followers)
    exact = not any(f.in_integers for f in followers)
    error, difference = compare_outputs(outputs, found, clean & exact)
    return Verification(
        max_error=max(error, *(f.max_error for f in followers)),
        max_difference=difference,
        ties=sum(f.ties for f in followers),
        codes=sum(f.codes for f in followers),
        samples=len(clean),
        clean_samples=int(clean.sum()),
        layers=len(packed.layers),
        max_code_difference=steps,
    )


class Follower:
    """Replays the model on the file's last run: each layer gives what it gave in the file.

    Args:
        packed, written, tensors, uses, check: as in `verify_file`.
        batch: samples that were run.
    """

    def __init__(self, packed, written, tensors, uses, check: Check, batch: slice):
        self.packed, self.written, self.tensors = packed, written, tensors
        self.uses, self.check = uses, check
        self.places = {
            path: list(zip(written.inputs[path], written.outputs[path], strict=True))
            for path in written.inputs
        }
        self.done = dict.fromkeys(packed.layers, 0)
        self.batch = batch
        self.clean: np.ndarray = np.ones(1, bool)  # samples whose codes are the model's
        self.ties = self.codes = self.max_steps = 0
        self.max_error = 0.0
        self.in_integers = False

    def __call__(self, call: Call, args: tuple, kwargs: dict):
        """The result of one call, in the file's numbers where it is a quantized layer."""
        path = call.path
        if path in self.packed.folded:
            return args[0]
        if path not in self.packed.layers:
            return call.run(call.layer, args, kwargs)
        collected, layer = self.packed.layers[path], self.written.layers[path]
        use = self.uses[path][self.done[path]]
        self.done[path] += 1
        x = as_read(collected, layer, ops.convert_to_numpy(args[0]))
        ends = self._tensors(path, x)
        if ends is None:  # nothing needs this use, so the file does without it
            return call.run(call.layer, args, kwargs)
        source, output = ends
        self._compare_input(path, layer, x, source, as_read(collected, layer, use.x[self.batch]))
        error, steps = self.check(collected, layer, source.values, output)
        self.max_error, self.max_steps = max(self.max_error, error), max(self.max_steps, steps)
        self.in_integers |= output.scale is not None
        y = ops.convert_to_tensor(output.values.reshape(len(x), *use.y.shape[1:]))
        # What the file runs as an operator of its own; elsewhere once more changes nothing.
        return y if layer.op == "embedding" else call.layer.activation(y)

    def _tensors(self, path: str, x: np.ndarray) -> tuple[FileTensor, FileTensor] | None:
        """Input and output of this use in the file.

        The file may run the uses of a shared layer in another order, uses that read the same only
        once, and others not at all. So they are told apart by what is in them; a file that really
        mixes them up has other outputs. None for a use that the file does without.
        """
        sources = [(self.tensors.get(i), o) for i, o in self.places[path]]
        fitting = [(source, o) for source, o in sources if source.values.size == x.size]
        fewer = len(sources) < len(self.uses[path])
        if not fitting and not fewer:
            raise VerificationError(
                f"layer '{path}': expected to read {x.shape} in the file, got "
                f"{sources[0][0].values.shape}"
            )
        if not fitting:
            return None

        def distance(end: tuple[FileTensor, int]) -> float:
            return np.abs(end[0].values.reshape(x.shape) - x).sum(dtype=np.float64)

        source, output = min(fitting, key=distance)
        source = source.reshaped(x.shape)
        if fewer and self._far(self.written.layers[path], x, source.values).any():
            return None
        return source, self.tensors.get(output)

    def _far(self, layer: PackedLayer, x: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Where an input in the file differs from `x` by more than a tie."""
        grid = layer.grid
        if isinstance(grid, FloatGrid):
            ends = (grid.lo, grid.hi)  # stock files cut inputs off before they come to the layer
            return ~(relative_error(np.clip(x, *ends), np.clip(found, *ends)) <= TOLERANCE)
        differs = _differs(grid, x, self._values(grid, found))
        return differs & (grid.border_distance(x) > tie_limit(x)) | ~np.isfinite(found)

    def _values(self, grid, found: np.ndarray) -> np.ndarray:
        """An input in the file on its grid."""
        return found if self.tensors.rounded else grid.values(grid.codes(found))

    def _compare_input(self, path: str, layer: PackedLayer, x, source: FileTensor, alone) -> None:
        """Codes of an input; those that differ must be ties.

        Args:
            x: what the model makes of the file's numbers.
            source: the input in the file.
            alone: the input in the model alone, for counting.
        """
        found, grid = source.values, layer.grid
        self.clean = np.broadcast_to(self.clean, len(x))
        far = self._far(layer, x, found)
        if not isinstance(grid, FloatGrid):
            values = self._values(grid, found)
            differs = _differs(grid, x, values)
            clean = self.clean.reshape(-1, *[1] * (x.ndim - 1))
            moved = clean & _differs(grid, alone, values)
            # In integers the layers before may be one code off, which is no tie.
            self.ties += int((differs if self.in_integers else differs | moved).sum())
            self.codes += x.size
            self.clean = self.clean & ~moved.reshape(len(x), -1).any(axis=1)
        if far.any():
            at = first(far)
            raise VerificationError(
                f"layer '{path}': in the whole file its input differs at {at}: the model gives "
                f"{x[at]!r}, the file {found[at]!r}"
            )


def _differs(grid, x: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Where `x` has another value on a grid than `values`, which are on it up to rounding."""
    expected = grid.values(grid.codes(x))
    return ~(np.abs(expected - values) <= 1e-5 * max(np.abs(expected).max(initial=0), 1e-30))


def _compare_followed(followed, found: list[np.ndarray], start: int) -> None:
    """Outputs of the file, given what its layers gave."""
    for index, y in enumerate(keras.tree.flatten(followed)):
        expected = ops.convert_to_numpy(y)
        ours = found[index].reshape(expected.shape)
        _check_finite(index, ours, start)
        bad = ~(relative_error(expected, ours) <= TOLERANCE)
        if bad.any():
            sample, *at = first(bad)
            raise VerificationError(
                f"output {index}, sample {start + sample}: differs at {tuple(at)}: the model gives "
                f"{expected[first(bad)]!r} for what the layers of the file give, the file "
                f"{ours[first(bad)]!r}; what stands behind the last layers must differ"
            )


def _check_finite(index: int, y: np.ndarray, start: int = 0) -> None:
    bad = ~np.isfinite(y)
    if bad.any():
        sample, *at = first(bad)
        raise VerificationError(
            f"output {index}, sample {start + sample}: expected finite values, got "
            f"{y[first(bad)]} at {tuple(at)}"
        )


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
        _check_finite(index, ours)
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
                "agrees"
            )
    return max_error, max_difference
