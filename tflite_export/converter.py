"""The stock TFLite converter, on every backend of Keras.

The converter understands TensorFlow. What the JAX backend hands it, it takes apart in ways of its
own: a convolution of one channel becomes a depthwise one, and a product of rank 3 cannot be written
as one operator. Keras has one backend a process, so on other backends the model goes as a file to a
process with the TensorFlow backend. So a model gives the same file on all of them.
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import subprocess
import sys
import tempfile

import keras

PARENT_ONLY = ("TF_CONFIG", "TF_USE_LEGACY_KERAS", "XLA_FLAGS")
"""Environment variables that are not for the other process. TensorFlow aborts on flags of XLA that
only JAX knows."""

_PROGRAM = f"import sys; from {__name__} import main; sys.exit(main(*sys.argv[1:]))"
_UNKNOWN, _REFUSED = 3, 4  # exit codes: it cannot load the model, the converter refuses it


class ConversionError(ValueError):
    """A model that the TFLite converter refuses."""


def convert(plain: keras.Model) -> bytes:
    """The stock converter's output for a plain model, without optimizations.

    Raises:
        ConversionError: a model that the converter refuses.
    """
    if keras.backend.backend() == "tensorflow":
        return _convert_here(plain)
    with tempfile.TemporaryDirectory() as folder:
        try:
            return _convert_elsewhere(plain, pathlib.Path(folder))
        except _UnknownModelError as unknown:
            # Functions and classes of the user's script exist here alone. This backend may do.
            try:
                return _convert_here(plain)
            except ConversionError as error:
                raise ConversionError(
                    f"model '{plain.name}': TFLite cannot hold it as the {keras.backend.backend()} "
                    f"backend writes it, and a process with the TensorFlow backend cannot load it "
                    f"({unknown}); move your own layers and functions to a module that can be "
                    "imported, or save the model and export it under KERAS_BACKEND=tensorflow"
                ) from error


class _UnknownModelError(Exception):
    """A model that another process cannot load."""


def _convert_here(plain: keras.Model) -> bytes:
    import tensorflow as tf

    with contextlib.redirect_stdout(io.StringIO()):  # it prints where its temporary files are
        try:
            return tf.lite.TFLiteConverter.from_keras_model(plain).convert()
        except Exception as error:  # its own class, or whatever its stages raise
            raise ConversionError(
                f"model '{plain.name}': TFLite cannot hold it: {_first_line(error)}"
            ) from error


def _convert_elsewhere(plain: keras.Model, folder: pathlib.Path) -> bytes:
    """What a process with the TensorFlow backend makes of the model.

    Raises:
        ConversionError: a model that the converter refuses.
        _UnknownModelError: a model that the process cannot load.
    """
    model, result = folder / "model.keras", folder / "result"
    try:
        plain.save(model)
    except Exception as error:  # layers whose configuration is not for saving raise what they like
        raise _UnknownModelError(_first_line(error)) from error
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(model), str(result), *_modules(plain)],
        env=_environment(),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return result.read_bytes()
    if done.returncode == _UNKNOWN:
        raise _UnknownModelError(result.read_text(encoding="utf-8"))
    if done.returncode == _REFUSED:
        raise ConversionError(result.read_text(encoding="utf-8"))
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    raise ConversionError(
        f"model '{plain.name}': expected the process that converts it to end well, got exit code "
        f"{done.returncode}: {last}"
    )


def _environment() -> dict[str, str]:
    """The environment of the other process: the TensorFlow backend, our imports, no accelerator."""
    kept = {name: value for name, value in os.environ.items() if name not in PARENT_ONLY}
    return {
        **kept,
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "-1",  # this process may hold all memory of a GPU
        "TF_CPP_MIN_LOG_LEVEL": kept.get("TF_CPP_MIN_LOG_LEVEL", "3"),
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }


def _modules(plain: keras.Model) -> list[str]:
    """Modules that must be imported to load a model: those of what is not Keras's own."""
    used = [*map(type, plain.layers), *keras.saving.get_custom_objects().values()]
    names = {getattr(kind, "__module__", None) or "__main__" for kind in used}
    return sorted(n for n in names if n.partition(".")[0] not in ("keras", "builtins", "__main__"))


def _first_line(error: Exception, behind: str = "") -> str:
    """Of the message, or of what stands behind the last `behind` in it, which is the cause."""
    text = str(error).strip()
    if behind:
        text = text.rpartition(behind)[2]
    return (text.splitlines() or [type(error).__name__])[0]


def main(model: str, result: str, *modules: str) -> int:
    """What the other process does: convert a saved model; the exit code.

    Args:
        model: the .keras file.
        result: the file to write: the converted model, or what went wrong.
        modules: to import before, because they define classes of the model.
    """
    target = pathlib.Path(result)
    try:
        for module in modules:
            # Other models of the program may be what it was for; if not, loading says so.
            with contextlib.suppress(ImportError):
                __import__(module)
        # The file is of the process that started this one, and so is the code in it.
        plain = keras.models.load_model(model, compile=False, safe_mode=False)
    except Exception as error:  # Keras raises whatever the file leads it to
        target.write_text(_first_line(error, behind="Exception encountered: "), encoding="utf-8")
        return _UNKNOWN
    try:
        target.write_bytes(_convert_here(plain))
    except ConversionError as error:
        target.write_text(str(error), encoding="utf-8")
        return _REFUSED
    return 0
