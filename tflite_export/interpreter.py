"""Run an exported file, of whatever kind it is."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

import numpy as np

from tflite_export import native
from tflite_export.kbits import container
from tflite_export.kbits.runner import KbitsRunner


def delegate_path() -> pathlib.Path:
    """Path of the library that a stock TFLite interpreter loads to run packed files.

    Example:
        ai_edge_litert.interpreter.Interpreter(
            "m.tflite", experimental_delegates=[load_delegate(str(delegate_path()))])

    Raises:
        FileNotFoundError: if the library was not built.
    """
    return native.library_path()


class Interpreter:
    """A file, ready to run: a .kbits file in our C runtime (in NumPy where it was not built), any
    .tflite file in the stock LiteRT interpreter, with our delegate where it is needed.

    Args:
        path: of the file. What it is, is told by its identifier, not by its name.
        threads: that share the work of a run; results of packed layers do not depend on them.
        keep_tensors: keep intermediate tensors, so that `tensor` can read them.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is corrupt, or neither kind of file.
    """

    def __init__(self, path: str | os.PathLike, threads: int = 1, keep_tensors: bool = False):
        self.path = pathlib.Path(path)
        data = self.path.read_bytes()
        try:
            self._runner = open_runner(data, threads, keep_tensors)
        except ValueError as error:
            raise ValueError(f"file '{self.path}': {error}") from None
        self.packed_layers = self._runner.packed_layers

    def predict(self, x, batch_size: int = 32):
        """Outputs for `x`, as `model.predict` gives them.

        Args:
            x: an array with a batch axis, or a list of them, one for each input.
            batch_size: samples run at once, where the file allows it. A file made for a batch of
                1 takes them one by one.

        Raises:
            ValueError: inputs that do not fit the file.
        """
        several = isinstance(x, list | tuple) and all(hasattr(a, "shape") for a in x)
        try:
            inputs = [np.asarray(a) for a in (x if several else [x])]
        except (TypeError, ValueError):
            raise ValueError(f"expected an array or a list of arrays, got {type(x)}") from None
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"expected a batch_size of at least 1, got {batch_size!r}")
        self.check(inputs)
        count, step = len(inputs[0]), self.batch or batch_size
        if self.batch and count % step:
            raise ValueError(f"expected a multiple of the file's batch {step}, got {count} samples")
        parts = [
            self.run([a[start : start + step] for a in inputs]) for start in range(0, count, step)
        ]
        outputs = [np.concatenate(part) for part in zip(*parts, strict=True)]
        return outputs[0] if len(outputs) == 1 else outputs

    @property
    def inputs(self) -> list[tuple[str, tuple[int, ...], np.dtype]]:
        """Name, shape and type of each input; -1 is an axis of any length."""
        return self._runner.inputs

    @property
    def batch(self) -> int | None:
        """The batch size that the file was made for; None if any will do."""
        return self._runner.batch

    def run(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """Outputs for one batch.

        Raises:
            ValueError: inputs that do not fit the file.
        """
        types = [dtype for _, _, dtype in self.inputs]
        if len(inputs) != len(types):
            raise ValueError(f"expected {len(types)} inputs, got {len(inputs)}")
        return self._runner.run([_as_type(a, t) for a, t in zip(inputs, types, strict=True)])

    def repeated(self, inputs: list[np.ndarray]) -> Callable[[], object]:
        """A function that runs the file on these inputs once more, without copying them: to time.

        Raises:
            ValueError: inputs that do not fit the file.
        """
        self.run(inputs)
        types = [dtype for _, _, dtype in self.inputs]
        return self._runner.repeated([_as_type(a, t) for a, t in zip(inputs, types, strict=True)])

    def tensor(self, index: int) -> np.ndarray:
        """An intermediate tensor of the last run (needs `keep_tensors`)."""
        return self._runner.tensor(index)

    def check(self, inputs: list[np.ndarray]) -> None:
        """Raise ValueError unless the inputs fit the file."""
        if len(inputs) != len(self.inputs):
            raise ValueError(f"expected {len(self.inputs)} inputs, got {len(inputs)}")
        for a, (name, wanted, dtype) in zip(inputs, self.inputs, strict=True):
            fits = len(wanted) == a.ndim and all(
                n in (-1, m) for n, m in zip(wanted[1:], a.shape[1:], strict=True)
            )
            if not fits or not len(a):
                raise ValueError(
                    f"input '{name}': expected shape (batch, {', '.join(map(str, wanted[1:]))}), "
                    f"got {a.shape}"
                )
            try:
                _as_type(a, dtype)
            except ValueError as error:
                raise ValueError(f"input '{name}': {error}") from None
        if len({len(a) for a in inputs}) > 1:
            raise ValueError(f"expected as many samples of each input, got {_lengths(inputs)}")


def open_runner(data: bytes, threads: int = 1, keep_tensors: bool = False):
    """What runs a file of these bytes; the arguments are those of `Interpreter`.

    Raises:
        ValueError: the file is corrupt, or neither kind of file.
    """
    if data[4:8] != container.IDENTIFIER:
        # Here, so that .kbits files run without LiteRT.
        from tflite_export.tflite_runner import TfliteRunner

        return TfliteRunner(data, threads, keep_tensors)
    if native.has_library():
        return KbitsRunner(data, keep_tensors, threads)
    from tflite_export.in_numpy.runner import NumpyRunner

    return NumpyRunner(data, keep_tensors)


def _as_type(a: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Numbers as the type of an input. Ids may come as whole floats, as Keras allows."""
    a = np.asarray(a)
    if a.dtype.kind not in "biuf":
        raise ValueError(f"expected numbers, got {a.dtype}")
    with np.errstate(invalid="ignore"):  # what is not whole or too large is found out below
        converted = a.astype(dtype, copy=False)
    if dtype.kind in "iu" and not np.array_equal(converted, a):
        raise ValueError(f"expected whole numbers that fit {dtype}, got others")
    return converted


def _lengths(inputs: list[np.ndarray]) -> list[int]:
    return [len(a) for a in inputs]
