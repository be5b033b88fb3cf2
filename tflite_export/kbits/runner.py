"""Run a .kbits file with the C library through ctypes."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import numpy as np

from tflite_export.kbits import container
from tflite_export.native import library_path
from tflite_export.native_handle import NativeHandle

_MAX_RANK = 8
_KEEP_TENSORS = 1
_TYPES = (np.dtype(np.float32), np.dtype(np.int32))


End = tuple[str, tuple[int, ...], np.dtype]
"""Name, shape and type of an input or output."""


class _TensorInfo(ctypes.Structure):
    """`kb_tensor_info` of kb_model.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("rank", ctypes.c_int),
        ("dims", ctypes.c_int32 * _MAX_RANK),
        ("bytes", ctypes.c_size_t),
    )

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.dims[: self.rank])

    @property
    def dtype(self) -> np.dtype:
        return _TYPES[self.type]

    def copied(self) -> End:
        """What it says, in memory of its own: the name goes with the model."""
        return self.name.decode(errors="replace"), self.shape, self.dtype


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(library_path()))
    model, info = ctypes.c_void_p, ctypes.POINTER(_TensorInfo)
    error = (ctypes.c_char_p, ctypes.c_size_t)
    pointer = ctypes.POINTER(ctypes.c_void_p)
    library.kb_model_open.argtypes = (
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        pointer,
        *error,
    )
    for function in (library.kb_model_inputs, library.kb_model_outputs, library.kb_model_memory):
        function.argtypes = (model,)
    library.kb_model_memory.restype = ctypes.c_size_t
    library.kb_model_input.argtypes = (model, ctypes.c_int, info, *error)
    library.kb_model_output.argtypes = (model, ctypes.c_int, info, *error)
    library.kb_model_run.argtypes = (model, pointer, pointer, *error)
    library.kb_model_set_threads.argtypes = (model, ctypes.c_int, *error)
    library.kb_model_tensor.argtypes = (model, ctypes.c_size_t, info, pointer, *error)
    library.kb_model_close.argtypes = (model,)
    library.kb_model_close.restype = None
    return library


class KbitsRunner(NativeHandle):
    """A .kbits file in the C runtime. Not for use in two threads at once.

    `inputs` and `outputs` are lists of (name, shape, type), `packed_layers` are the paths of the
    quantized layers.

    Args:
        data: bytes of the file.
        keep_tensors: keep all tensors of the last run, so that `tensor` can read them.
        threads: 1 to 256 that share the work of a run.

    Raises:
        ValueError: if the file is broken, or the number of threads, in the words of the C library.
        FileNotFoundError: if the C library was not built.
    """

    def __init__(self, data: bytes, keep_tensors: bool = False, threads: int = 1):
        flags = _KEEP_TENSORS if keep_tensors else 0
        opened = ("kb_model_open", bytes(data), len(data), flags)
        super().__init__(_library(), *opened, release="kb_model_close")
        self._call("kb_model_set_threads", threads)
        self.inputs = self._ends("kb_model_inputs", "kb_model_input")
        self.outputs = self._ends("kb_model_outputs", "kb_model_output")
        blobs = container.read(data).blobs or []
        self.packed_layers = tuple(blob.path.decode() for blob in blobs if blob.path)

    @property
    def batch(self) -> int | None:
        """The batch size that the file was made for; None if no input has a batch axis."""
        return next((shape[0] for _, shape, _ in self.inputs if shape), None)

    @property
    def memory(self) -> int:
        """Bytes that the model holds."""
        return self._library.kb_model_memory(self._open())

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Outputs for one batch.

        Raises:
            ValueError: inputs that do not fit the file, or ids outside of an embedding.
        """
        given, found = self._given(arrays), self._room()
        self._call("kb_model_run", _pointers(given), _pointers(found))
        return found

    def repeated(self, arrays: list[np.ndarray]) -> Callable[[], object]:
        """A function that runs it on these inputs once more, in place. It outlives no `close`.

        Raises:
            ValueError: as `run`.
        """
        given, found = self._given(arrays), self._room()
        ends = _pointers(given), _pointers(found)
        return self._repeatable("kb_model_run", *ends, kept=(given, found))

    def _given(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """The inputs as the C library reads them."""
        if len(arrays) != len(self.inputs):
            raise ValueError(f"expected {len(self.inputs)} inputs, got {len(arrays)}")
        given = []
        for (name, shape, dtype), x in zip(self.inputs, arrays, strict=True):
            if np.shape(x) != shape:
                raise ValueError(f"input '{name}': expected shape {shape}, got {np.shape(x)}")
            given.append(np.asarray(x, dtype, order="C"))
        return given

    def _room(self) -> list[np.ndarray]:
        """Room for the outputs."""
        return [np.empty(shape, dtype) for _, shape, dtype in self.outputs]

    def tensor(self, index: int) -> np.ndarray:
        """A tensor of the last run, by its index in the file.

        Raises:
            ValueError: if there is none, or tensors were not kept.
        """
        info, data = _TensorInfo(), ctypes.c_void_p()
        self._call("kb_model_tensor", index, ctypes.byref(info), ctypes.byref(data))
        raw = ctypes.string_at(data, info.bytes)
        return np.frombuffer(raw, info.dtype).reshape(info.shape).copy()

    def _ends(self, count: str, one: str) -> list[End]:
        ends = []
        for i in range(getattr(self._library, count)(self._open())):
            info = _TensorInfo()
            self._call(one, i, ctypes.byref(info))
            ends.append(info.copied())
        return ends


def _pointers(arrays: list[np.ndarray]):
    return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
