"""Run a .tflite file in the stock LiteRT interpreter, with our delegate where it is needed."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from tflite_export import flatbuffer, native
from tflite_export.blob.writer import read_blob
from tflite_export.tflite_writer import packed_blobs


class TfliteRunner:
    """A .tflite file in the stock LiteRT interpreter.

    Args:
        data: bytes of the file.
        threads: for the interpreter.
        keep_tensors: keep intermediate tensors, so that `tensor` can read them.

    Raises:
        ValueError: the file is corrupt, or no TFLite file.
    """

    def __init__(self, data: bytes, threads: int = 1, keep_tensors: bool = False):
        from ai_edge_litert import interpreter as litert

        tree = flatbuffer.read(data)
        blobs = packed_blobs(tree)
        if blobs and not flatbuffer.has_checksum(tree):
            raise ValueError("expected a checksum in a packed file, got none")
        for blob in blobs.values():
            read_blob(blob)
        self.packed_layers = tuple(blobs)
        delegates = [litert.load_delegate(str(native.library_path()))] if blobs else []
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
            raise ValueError(f"the interpreter refused it: {error}") from None
        self._shapes = [tuple(d["shape"]) for d in self._interpreter.get_input_details()]

    @property
    def inputs(self) -> list[tuple[str, tuple[int, ...], np.dtype]]:
        """Name, shape and type of each input; -1 is an axis of any length."""
        return [
            (d["name"], tuple(int(n) for n in d["shape_signature"]), np.dtype(d["dtype"]))
            for d in self._interpreter.get_input_details()
        ]

    @property
    def batch(self) -> int | None:
        """The batch size that the file was made for; None if any will do."""
        return next((shape[0] for _, shape, _ in self.inputs if shape[:1] > (-1,)), None)

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Outputs for one batch.

        Raises:
            ValueError: what the interpreter cannot run.
        """
        details = self._interpreter.get_input_details()
        shapes = [a.shape for a in arrays]
        try:
            if shapes != self._shapes:
                for detail, shape in zip(details, shapes, strict=True):
                    self._interpreter.resize_tensor_input(detail["index"], shape)
                self._interpreter.allocate_tensors()
                self._shapes = shapes
            for detail, a in zip(details, arrays, strict=True):
                self._interpreter.set_tensor(detail["index"], a.astype(detail["dtype"]))
            self._interpreter.invoke()
        except RuntimeError as error:
            raise ValueError(f"the interpreter cannot run it: {error}") from None
        outputs = self._interpreter.get_output_details()
        return [self._interpreter.get_tensor(detail["index"]) for detail in outputs]

    def repeated(self, arrays: list[np.ndarray]) -> Callable[[], object]:
        """A function that runs it on these inputs once more; the interpreter keeps its inputs."""
        self.run(arrays)
        return self._interpreter.invoke

    def tensor(self, index: int) -> np.ndarray:
        """An intermediate tensor of the last run (needs `keep_tensors`)."""
        return self._interpreter.get_tensor(index)
