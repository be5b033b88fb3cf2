"""Does a packed layer of a file compute what its Keras layer computes? One layer at a time.

Codes, widths and values of the kernel must be the model's exactly. Then both run on the *model's*
inputs: input codes may differ at rounding ties only, and outputs must agree.
"""

from __future__ import annotations

import numpy as np
from keras import ops

from kerasbits.packed import FloatGrid, Floats
from tflite_export.blob.writer import read_blob
from tflite_export.collect import Collected
from tflite_export.layer import PackedLayer
from tflite_export.native import open_op
from tflite_export.verification.activated import activated_error
from tflite_export.verification.padding import as_read
from tflite_export.verification.recorder import Use
from tflite_export.verification.result import (
    TOLERANCE,
    VerificationError,
    first,
    relative_error,
    tie_limit,
)


def verify_layer(collected: Collected, blob: bytes | None, uses: list[Use]) -> float:
    """Compare the blob of a layer with its Keras layer.

    Args:
        collected: the layer of the model.
        blob: as it stands in the file.
        uses: what the layer reads and gives in the model.

    Returns:
        The largest relative difference of an output.

    Raises:
        VerificationError: naming the layer and the first place that differs, with both values.
    """
    if blob is None:
        raise VerificationError(f"layer '{collected.path}': expected it in the file, got none")
    try:
        layer = read_blob(blob)
    except ValueError as error:
        raise VerificationError(f"layer '{collected.path}': {error}") from None
    verify_kernel(collected, layer)
    op = open_op(blob)
    return max((_verify_use(collected, layer, op, use) for use in uses), default=0.0)


def verify_kernel(collected: Collected, layer: PackedLayer) -> None:
    """The kernel in a file is the one that the model uses in inference, code by code."""
    path, exported = collected.path, collected.layer.exported_kernel()
    if int(np.prod(exported.shape)) != int(np.prod(layer.weight.shape)):
        raise VerificationError(
            f"layer '{path}': expected a kernel of shape {exported.shape}, got {layer.weight.shape}"
        )
    bits = np.broadcast_to(layer.spread(np.asarray(layer.weight.bits)), (layer.row_count,))
    _same(path, "bits of channel", np.asarray(exported.bits), bits)
    if not isinstance(exported.encoding, Floats):
        if isinstance(layer.weight.encoding, Floats):
            raise VerificationError(f"layer '{path}': expected codes in the file, got floats")
        codes = layer.weight.codes.reshape(exported.shape)
        _same(path, "kernel code", np.asarray(exported.codes), codes)
    decoded = exported.decode()
    _same(path, "kernel value", decoded, layer.weight.decode().reshape(decoded.shape))
    _verify_used(collected)


def _same(path: str, what: str, expected: np.ndarray, found: np.ndarray) -> None:
    differs = ~(np.broadcast_to(expected, found.shape) == found)  # also where it is NaN
    if differs.any():
        at = first(differs)
        raise VerificationError(
            f"layer '{path}': {what} differs at {at}: the model has "
            f"{np.broadcast_to(expected, found.shape)[at]}, the file {found[at]}"
        )


def _verify_used(collected: Collected) -> None:
    """The decoded codes of the model are the kernel that its layer uses."""
    host = collected.layer.hosts.get("kernel")
    if host is None:
        return
    packed = collected.layer.packed_kernel()
    kernel = ops.reshape(collected.layer.kernel * 1.0, packed.shape)  # as the quantizer sees it
    used, decoded = ops.convert_to_numpy(host(kernel)), packed.decode()
    top = np.abs(used).max(initial=0)
    # Four units in the last place of the largest level: compilers may fuse or reorder.
    bad = ~(np.abs(used - decoded) <= 4 * np.spacing(np.float32(top)))
    if bad.any():
        at = first(bad)
        raise VerificationError(
            f"layer '{collected.path}': kernel differs at {at}: the model uses {used[at]!r}, its "
            f"codes mean {decoded[at]!r}"
        )


def _verify_use(collected: Collected, layer: PackedLayer, op, use: Use) -> float:
    """One use of a layer, fed with the model's input; its largest relative difference."""
    host, x, y = collected.layer.hosts.get("input"), use.x, use.y
    if host is not None:
        quantized = ops.convert_to_numpy(host(ops.convert_to_tensor(x)))
        tied = _verify_codes(collected, layer, op, x, quantized)
        # Where a tie fell differently, outputs legitimately differ: take the model's choice.
        x = np.where(tied, quantized, x)
    clamp = (layer.act_min, layer.act_max)
    y = y if layer.op == "embedding" else np.clip(y, *clamp)
    found = op.run(as_read(collected, layer, x))
    if found.size != y.size:
        raise VerificationError(
            f"layer '{collected.path}': expected an output of shape {y.shape}, got {found.shape}"
        )
    found = found.reshape(y.shape)
    if layer.op == "embedding":
        error = relative_error(y, found)
    else:
        error, found = activated_error(collected, y, np.clip(found, *clamp))
    if not (error <= TOLERANCE).all():
        at = first(~(error <= TOLERANCE))
        raise VerificationError(
            f"layer '{collected.path}': output differs at {at}: the model gives {y[at]!r}, the "
            f"file {found[at]!r}"
        )
    return float(error.max(initial=0))


def _verify_codes(collected, layer, op, x, quantized) -> np.ndarray:
    """Where the input codes differ, in the shape of x; an error unless each place is a tie."""
    grid = layer.grid
    if isinstance(grid, FloatGrid):
        return np.zeros(x.shape, bool)
    codes = op.input_codes(x)
    step = np.abs(grid.values(codes) - quantized)
    differs = ~(step <= 1e-5 * max(np.abs(quantized).max(initial=0), 1e-30))
    far = differs & (grid.border_distance(x) > tie_limit(x))
    if far.any():
        at = first(far)
        raise VerificationError(
            f"layer '{collected.path}': input code differs at {at} for x = {x[at]!r}: the model "
            f"rounds to {quantized[at]!r}, the file to {grid.values(codes)[at]!r} (code "
            f"{codes[at]})"
        )
    return differs
