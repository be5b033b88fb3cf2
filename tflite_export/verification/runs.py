"""Does a layer in a file give what it must give for its input there?"""

from __future__ import annotations

import numpy as np
from keras import ops

from tflite_export.blob.writer import write_blob
from tflite_export.collect import Collected
from tflite_export.in_numpy.op import NumpyOp
from tflite_export.layer import PackedLayer
from tflite_export.native import NativeOp, open_op
from tflite_export.verification.activated import activated_error
from tflite_export.verification.padding import as_fed
from tflite_export.verification.result import (
    TOLERANCE,
    VerificationError,
    first,
    relative_error,
)
from tflite_export.verification.tensors import FileTensor

SAME_RUN = 1e-6
"""Largest relative difference between a layer run inside a file and alone, both by our kernels."""


class CheckBlobs:
    """The operator gives what its blob gives alone; that is compared with Keras elsewhere."""

    def __init__(self, blobs: dict[str, bytes]):
        self._ops = {path: open_op(blob) for path, blob in blobs.items()}

    def __call__(
        self, collected: Collected, layer: PackedLayer, x: np.ndarray, output: FileTensor
    ) -> tuple[float, int]:
        """See `whole_file.Check`."""
        expected = self._ops[collected.path].run(x)
        found = output.values.reshape(expected.shape)
        error = relative_error(expected, found)
        _raise(collected, ~(error <= SAME_RUN), expected, found, "the layer alone")
        return 0.0, 0


class CheckStock:
    """The builtin operators give what the Keras layer gives for the rounded input in the file.

    Floats within `TOLERANCE`; integers, which stand before an activation that is not fused, within
    one code of what the packed layer gives, and that is within `TOLERANCE` of Keras.
    """

    def __init__(self):
        self._ops: dict[str, NativeOp | NumpyOp] = {}

    def __call__(
        self, collected: Collected, layer: PackedLayer, x: np.ndarray, output: FileTensor
    ) -> tuple[float, int]:
        """See `whole_file.Check`."""
        if output.scale is None:
            found = output.values
        else:
            if collected.path not in self._ops:
                self._ops[collected.path] = open_op(write_blob(layer))
            found = self._ops[collected.path].run(x)
        error = _keras_error(collected, layer, x, found)
        if output.scale is None:
            return error, 0
        expected, found = found, output.values.reshape(found.shape)
        codes = [np.rint(values / output.scale) + output.zero for values in (expected, found)]
        # Codes of 8 bits end somewhere; what lies beyond has the outer code.
        steps = np.abs(np.clip(codes[0], -128, 127) - codes[1])
        _raise(collected, ~(steps <= 1), expected, found, "the model")
        return 0.0, int(steps.max(initial=0))


def _keras_error(collected: Collected, layer: PackedLayer, x: np.ndarray, found) -> float:
    """Largest relative difference of `found` from what the Keras layer gives for `x`."""
    y = collected.layer(ops.convert_to_tensor(as_fed(collected, layer, x)))
    if collected.batch_norm is not None:
        y = collected.batch_norm(y)
    expected = ops.convert_to_numpy(y)
    found = found.reshape(expected.shape)
    if layer.op == "embedding":
        error = relative_error(expected, found)
    else:
        expected = np.clip(expected, layer.act_min, layer.act_max)
        error, found = activated_error(collected, expected, found)
    _raise(collected, ~(error <= TOLERANCE), expected, found, "the model")
    return float(error.max(initial=0))


def _raise(collected: Collected, bad: np.ndarray, expected, found, who: str) -> None:
    if bad.any():
        at = first(bad)
        raise VerificationError(
            f"layer '{collected.path}': in the whole file its output differs at {at}: {who} gives "
            f"{expected[at]!r}, the file {found[at]!r}"
        )
