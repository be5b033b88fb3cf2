"""What a frozen Bayesian Bits quantizer hands to exporters: packed kernels and input grids."""

from __future__ import annotations

import numpy as np
from keras import ops

from kerasbits import packed
from kerasbits.maths import bayesian_bits as maths
from kerasbits.quantizers.base import Site


def pack_kernel(
    w: np.ndarray, bits: int, kept: np.ndarray, beta, signed: float, site: Site
) -> packed.PackedTensor:
    """Codes `k + zero` of `maths.fixed_codes`, with `zero` the code of the value 0.

    Dropped channels have 0 bits and codes 0. Above 16 bits the clipped values stay float, 0 in
    dropped channels.

    Args:
        w: finite kernel, float32.
        bits: one of `maths.WIDTHS`.
        kept: (C,) bool.
        beta: scalar tensor, in values.
        signed: 0 or 1.
        site: of the kernel.
    """
    axis = site.channel_axis % len(site.shape)
    over = np.expand_dims(kept, [i for i in range(len(site.shape)) if i != axis])
    w = ops.convert_to_tensor(w)
    if bits > packed.MAX_CODE_BITS:
        values = ops.convert_to_numpy(maths.clip_to_range(w, beta, signed)) * over
        codes, bits = np.zeros(0), packed.FLOAT_BITS
        encoding = packed.Floats(packed.frozen_copy(values, np.float32))
    else:
        codes, step = (ops.convert_to_numpy(v) for v in maths.fixed_codes(w, beta, signed, bits))
        zero = zero_code(bits, signed)
        codes = (codes.astype(np.int32) + zero) * over
        encoding = packed.Uniform(
            scale=packed.frozen_copy([step], np.float32),
            zero=packed.frozen_copy([zero], np.int32),
            origin=packed.frozen_copy([0.0], np.float32),
        )
    return packed.PackedTensor(
        name=site.name,
        codes=packed.frozen_copy(codes, np.uint16),
        bits=packed.frozen_copy(bits * kept, np.int32),
        channel_axis=axis,
        encoding=encoding,
    )


def pack_grid(bits: int, beta, signed: float) -> packed.UniformGrid | packed.FloatGrid:
    """The grid of an input with 0 exactly on it; above 16 bits only its clip.

    Args:
        bits: one of `maths.WIDTHS`.
        beta: scalar tensor, in values.
        signed: 0 or 1.
    """
    lo, hi = (float(ops.convert_to_numpy(v)) for v in maths.clip_borders(beta, signed))
    if bits > packed.MAX_CODE_BITS:
        return packed.FloatGrid(lo, hi)
    width = ops.convert_to_tensor(float(bits), "float32")
    step = maths.select_width(maths.grid_steps(beta, signed), width)
    # All inputs beyond the top level have its code, so the clip may lie there. At `clip_borders`,
    # half a step above on signed grids, the code would hang on the last bit of a division.
    hi = min(hi, float(ops.convert_to_numpy(step * maths.top_code(width, signed))))
    return packed.UniformGrid(
        bits=bits,
        lo=max(lo, -hi),
        hi=hi,
        origin=0.0,
        step=float(ops.convert_to_numpy(step)),
        zero=zero_code(bits, signed),
    )


def zero_code(bits: int, signed: float) -> int:
    """Unsigned code of the value 0: `2^(b-1) - 1` if signed, else 0."""
    return 2 ** (bits - 1) - 1 if signed else 0
