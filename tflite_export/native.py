"""The C library through ctypes: run one packed layer from its blob."""

from __future__ import annotations

import ctypes
import functools
import pathlib
import warnings
from collections.abc import Callable

import numpy as np

from tflite_export.in_numpy.op import NumpyOp
from tflite_export.native_handle import NativeHandle

_MAX_RANK = 8
_REMEDY = (
    "build it with `python setup.py build_ext --inplace`, or reinstall with a C compiler "
    "(gcc or clang)"
)


def library_path() -> pathlib.Path:
    """Where the C library is, which is also the delegate that LiteRT loads.

    Raises:
        FileNotFoundError: if it was not built; the message says how to build it.
    """
    path = pathlib.Path(__file__).with_name("libkerasbits.so")
    if not path.is_file():
        raise FileNotFoundError(
            f"expected the C library of kerasbits at {path}, found none; {_REMEDY}"
        )
    return path


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(library_path()))
    text, dims = ctypes.c_char_p, ctypes.POINTER(ctypes.c_int32)
    error = (text, ctypes.c_size_t)
    floats = ctypes.c_void_p
    library.kb_isa.restype = text
    library.kb_op_create.argtypes = (
        text,
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_void_p),
        *error,
    )
    rank = (dims, ctypes.c_int)
    out_rank = ctypes.POINTER(ctypes.c_int)
    library.kb_op_output_shape.argtypes = (ctypes.c_void_p, *rank, dims, out_rank, *error)
    library.kb_op_reserve.argtypes = (ctypes.c_void_p, *rank, *error)
    library.kb_op_set_threads.argtypes = (ctypes.c_void_p, ctypes.c_int, *error)
    library.kb_op_run.argtypes = (ctypes.c_void_p, floats, *rank, floats, *error)
    library.kb_op_run_ids.argtypes = library.kb_op_run.argtypes
    library.kb_op_takes_ids.argtypes = (ctypes.c_void_p,)
    library.kb_op_input_codes.argtypes = (
        ctypes.c_void_p,
        floats,
        ctypes.c_size_t,
        ctypes.c_void_p,
    )
    library.kb_op_input_codes.restype = None
    library.kb_op_free.argtypes = (ctypes.c_void_p,)
    library.kb_op_free.restype = None
    return library


@functools.cache
def has_library() -> bool:
    """Whether the C library is there and loads. The first "no" of a process is a RuntimeWarning."""
    try:
        _library()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        message = str(error) if missing else f"expected a C library that loads ({error}); {_REMEDY}"
        warnings.warn(
            f"{message}. Until then NumPy runs packed layers", RuntimeWarning, stacklevel=3
        )
        return False
    return True


def open_op(blob: bytes) -> NativeOp | NumpyOp:
    """The layer of a blob, run by the C library, or by NumPy where there is none.

    Raises:
        ValueError: if the blob is broken.

    Example:
        >>> with open_op(write_blob(layer)) as op:
        ...     y = op.run(x)
    """
    return NativeOp(blob) if has_library() else NumpyOp(blob)


def isa() -> str:
    """Instruction set in use, such as "avx2"; the variable KERASBITS_ISA forces one."""
    return _library().kb_isa().decode()


class NativeOp(NativeHandle):
    """One packed layer, run by the C library. Not for use in two threads at once.

    Args:
        blob: bytes as `tflite_export.blob.writer.write_blob` makes them.

    Raises:
        ValueError: if the blob is broken, in the words of the C library.

    Example:
        >>> with NativeOp(write_blob(layer)) as op:
        ...     y = op.run(x)
    """

    def __init__(self, blob: bytes):
        super().__init__(_library(), "kb_op_create", bytes(blob), len(blob), release="kb_op_free")

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output for an input of `shape`."""
        out, rank = (ctypes.c_int32 * _MAX_RANK)(), ctypes.c_int()
        self._call("kb_op_output_shape", *_dims(shape), out, ctypes.byref(rank))
        return tuple(out[: rank.value])

    def reserve(self, shape: tuple[int, ...]) -> None:
        """Allocate what `run` needs for inputs of `shape`."""
        self._call("kb_op_reserve", *_dims(shape))

    def set_threads(self, threads: int) -> None:
        """Let 1 to 256 threads share the work of a run.

        Raises:
            ValueError: another number.
        """
        self._call("kb_op_set_threads", threads)

    def run(self, x: np.ndarray) -> np.ndarray:
        """`y = layer(x)`; float32, dense `[..., in]`, convolutions NHWC, embeddings whole `[...]`.

        Raises:
            ValueError: a wrong shape, or an id that is no row of an embedding.
        """
        function, arguments, (_, y) = self._prepared(x)
        self._call(function, *arguments)
        return y

    def repeated(self, x: np.ndarray) -> Callable[[], object]:
        """A function that runs it on `x` once more, in place: to time. It outlives no `close`.

        Raises:
            ValueError: as `run`.
        """
        function, arguments, arrays = self._prepared(x)
        return self._repeatable(function, *arguments, kept=arrays)

    def _prepared(self, x: np.ndarray) -> tuple[str, tuple, tuple[np.ndarray, np.ndarray]]:
        """The function of the library that runs it, its arguments, and the arrays they point to."""
        takes_ids = self._library.kb_op_takes_ids(self._open())
        x = _ids(x) if takes_ids else np.asarray(x, np.float32, order="C")
        y = np.empty(self.output_shape(x.shape), np.float32)
        function = "kb_op_run_ids" if takes_ids else "kb_op_run"
        return function, (x.ctypes.data, *_dims(x.shape), y.ctypes.data), (x, y)

    def input_codes(self, x: np.ndarray) -> np.ndarray:
        """Codes of `x` under the input grid, uint16 of the same shape (0 for a float grid)."""
        x = np.asarray(x, np.float32, order="C")
        codes = np.empty(x.shape, np.uint16)
        self._library.kb_op_input_codes(self._open(), x.ctypes.data, x.size, codes.ctypes.data)
        return codes


def _ids(x: np.ndarray) -> np.ndarray:
    """Whole numbers as int32."""
    x = np.asarray(x)
    whole = x.astype(np.int32, order="C", casting="unsafe") if x.dtype.kind in "iu" else None
    if whole is None or not np.array_equal(whole, x):
        raise ValueError(f"embedding: expected int32 ids, got {x.dtype} {x}")
    return whole


def _dims(shape: tuple[int, ...]):
    if len(shape) > _MAX_RANK or max(shape, default=0) >= 2**31:
        raise ValueError(f"expected at most {_MAX_RANK} axes below 2**31, got {shape}")
    return (ctypes.c_int32 * max(1, len(shape)))(*shape), len(shape)
