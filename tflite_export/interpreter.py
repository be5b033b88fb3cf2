"""Run an exported file."""

from __future__ import annotations

import os
import pathlib
import warnings

import numpy as np

from tflite_export import flatbuffer, native
from tflite_export.blob import read_blob
from tflite_export.tflite_writer import packed_blobs


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
    """A .tflite file in the stock LiteRT interpreter, with our delegate where it is needed.

    Args:
        path: of the file.
        threads: for the interpreter.
        keep_tensors: keep intermediate tensors, so that `tensor` can read them.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is corrupt, or no TFLite file.
    """

    def __init__(self, path: str | os.PathLike, threads: int = 1, keep_tensors: bool = False):
        from ai_edge_litert import interpreter as litert

        self.path = pathlib.Path(path)
        data = self.path.read_bytes()
        try:
            tree = flatbuffer.read(data)
            blobs = packed_blobs(tree)
            if blobs and not flatbuffer.has_checksum(tree):
                raise ValueError("expected a checksum in a packed file, got none")
            for blob in blobs.values():
                read_blob(blob)
        except ValueError as error:
            raise ValueError(f"file '{self.path}': {error}") from None
        self.packed_layers = tuple(blobs)
        delegates = [litert.load_delegate(str(delegate_path()))] if blobs else []
        try:
            with warnings.catch_warnings():  # it warns of the memory that kept tensors take
                warnings.simplefilter("ignore")
                self._interpreter = litert.Interpreter(
                    model_content=data,
                    experimental_delegates=delegates,
                    num_threads=threads,
                    experimental_preserve_all_tensors=keep_tensors,
                )
            self._interpreter.allocate_tensors()
        except RuntimeError as error:
            raise ValueError(f"file '{self.path}': the interpreter refused it: {error}") from None
        self._shapes = [tuple(d["shape"]) for d in self._interpreter.get_input_details()]

    def predict(self, x, batch_size: int = 32):
        """Outputs for `x`, as `model.predict` gives them.

        Args:
            x: an array with a batch axis, or a list of them, one for each input.
            batch_size: samples run at once, where the file allows it.

        Raises:
            ValueError: inputs that do not fit the file.
        """
        several = isinstance(x, list | tuple) and all(hasattr(a, "shape") for a in x)
        try:
            inputs = [np.asarray(a, np.float32) for a in (x if several else [x])]
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
    def batch(self) -> int | None:
        """The batch size that the file was made for; None if any will do."""
        fixed = [d["shape_signature"][0] for d in self._interpreter.get_input_details()]
        return next((int(n) for n in fixed if n != -1), None)

    def run(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """Outputs for one batch."""
        details = self._interpreter.get_input_details()
        shapes = [a.shape for a in inputs]
        if shapes != self._shapes:
            for detail, shape in zip(details, shapes, strict=True):
                self._interpreter.resize_tensor_input(detail["index"], shape)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for detail, a in zip(details, inputs, strict=True):
            self._interpreter.set_tensor(detail["index"], a.astype(detail["dtype"]))
        self._interpreter.invoke()
        outputs = self._interpreter.get_output_details()
        return [self._interpreter.get_tensor(detail["index"]) for detail in outputs]

    def tensor(self, index: int) -> np.ndarray:
        """An intermediate tensor of the last run (needs `keep_tensors`)."""
        return self._interpreter.get_tensor(index)

    def check(self, inputs: list[np.ndarray]) -> None:
        """Raise ValueError unless the inputs fit the file."""
        details = self._interpreter.get_input_details()
        if len(inputs) != len(details):
            raise ValueError(f"expected {len(details)} inputs, got {len(inputs)}")
        for a, detail in zip(inputs, details, strict=True):
            wanted = tuple(int(n) for n in detail["shape_signature"])
            fits = len(wanted) == a.ndim and all(
                n in (-1, m) for n, m in zip(wanted[1:], a.shape[1:], strict=True)
            )
            if not fits or not len(a):
                raise ValueError(
                    f"input '{detail['name']}': expected shape (batch, "
                    f"{', '.join(map(str, wanted[1:]))}), got {a.shape}"
                )
