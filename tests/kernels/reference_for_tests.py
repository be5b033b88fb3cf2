"""What a packed layer means, in float64 and explicit loops, without our C code.

Only how exact a result is to be is asked of the code under test."""

import numpy as np

from kerasbits.packed import FloatGrid, Floats, PlanesGrid, Table, TableGrid, Uniform
from tflite_export.in_numpy.whole_numbers import whole_layer


def exact_weight(tensor):
    """Decoded kernel in float64, without the roundings of float32."""
    encoding = tensor.encoding
    stored = encoding.values if isinstance(encoding, Floats) else tensor.codes.astype(np.int64)
    codes = np.moveaxis(stored, tensor.channel_axis, -1)
    if isinstance(encoding, Floats):
        values = codes.astype(np.float64)
    elif isinstance(encoding, Uniform):
        steps = codes - encoding.zero
        values = encoding.origin.astype(np.float64) + encoding.scale.astype(np.float64) * steps
    elif isinstance(encoding, Table):
        values = encoding.scale.astype(np.float64) * encoding.levels.astype(np.float64)[codes]
    else:
        values = np.zeros(codes.shape) + encoding.offset.astype(np.float64)
        for p, scale in enumerate(encoding.plane_scale.astype(np.float64)):
            values = values + scale * (codes >> p & 1)
    values = np.where(tensor.bits > 0, values, 0.0)
    return np.moveaxis(values, -1, tensor.channel_axis)


def exact_input(grid, x):
    """Quantized input in float64, without the roundings of float32."""
    if isinstance(grid, FloatGrid):
        return np.clip(x, np.float32(grid.lo), np.float32(grid.hi)).astype(np.float64)
    codes = grid.codes(x).astype(np.int64)
    if isinstance(grid, PlanesGrid):
        signs = [2 * (codes >> (grid.bits - 1 - i) & 1) - 1 for i in range(grid.bits)]
        return sum(float(v) * s for v, s in zip(grid.scales, signs, strict=True))
    if isinstance(grid, TableGrid):
        index = codes - (len(grid.levels) - 1 if grid.signed else 0)
        level = np.sign(index) * grid.levels.astype(np.float64)[np.abs(index)]
        return float(np.float32(grid.scale)) * level
    return float(np.float32(grid.origin)) + float(np.float32(grid.step)) * (codes - grid.zero)


def sums(layer, xq, wq):
    """The sums over k of a layer, float64."""
    if layer.op == "dense":
        return xq @ wq
    if layer.op == "depthwise_conv2d":
        kernel = wq.reshape(*wq.shape[:2], layer.groups, -1)
        parts = [kernel[:, :, c : c + 1] for c in range(layer.groups)]
    else:
        parts = np.split(wq, layer.groups, axis=-1)
    slices = np.split(xq, layer.groups, axis=-1)
    convolved = [_conv(layer, s, p) for s, p in zip(slices, parts, strict=True)]
    return np.concatenate(convolved, axis=-1)


def _widened(layer, x):
    """The image with zeros between its pixels."""
    factors = layer.input_dilations
    sizes = [max(0, (n - 1) * f + 1) for n, f in zip(x.shape[1:3], factors, strict=True)]
    wide = np.zeros((x.shape[0], *sizes, x.shape[3]))
    wide[:, :: factors[0], :: factors[1]] = x
    return wide


def _conv(layer, x, w):
    x, pads, sizes = _widened(layer, x), [], []
    for axis in range(2):
        stride, reach = layer.strides[axis], (w.shape[axis] - 1) * layer.dilations[axis] + 1
        size = x.shape[axis + 1]
        if layer.padding == "same":
            out = -(-size // stride)
            total = max((out - 1) * stride + reach - size, 0)
            pad = (total // 2, total - total // 2)
        else:
            pad = (0, 0) if layer.padding == "valid" else layer.padding[axis]
            out = (size + sum(pad) - reach) // stride + 1
        pads.append(pad)
        sizes.append(out)
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    y = np.zeros((x.shape[0], *sizes, w.shape[-1]))
    for ky in range(w.shape[0]):
        for kx in range(w.shape[1]):
            top, left = ky * layer.dilations[0], kx * layer.dilations[1]
            rows = slice(top, top + (sizes[0] - 1) * layer.strides[0] + 1, layer.strides[0])
            columns = slice(left, left + (sizes[1] - 1) * layer.strides[1] + 1, layer.strides[1])
            y += x[:, rows, columns] @ w[ky, kx]
    return y


def finish(layer, total):
    """Multiplier, bias and clamp."""
    if layer.multiplier is not None:
        total = total * layer.multiplier.astype(np.float64)
    if layer.bias is not None:
        total = total + layer.bias.astype(np.float64)
    return np.clip(total, layer.act_min, layer.act_max)


def expected(layer, x):
    """Output in float64 and a bound of what float32 may add to its error.

    Sums of whole numbers are exact. Where the layer is one of whole numbers, there are three
    roundings before the last one; else the epilogue is in double, and only the last one is left.
    With float inputs or weights, and in depthwise layers (decoded to float32), each of the K
    products and sums rounds: K + 4 units of 2**-24 of the sum of magnitudes. Magnitudes of planes
    are those of the planes, which may cancel.
    """
    xq, wq = exact_input(layer.grid, x), exact_weight(layer.weight)
    exact = sums(layer, xq, wq)
    y = finish(layer, exact)
    is_float = isinstance(layer.grid, FloatGrid) or isinstance(layer.weight.encoding, Floats)
    scale = np.ones(1) if layer.multiplier is None else np.abs(layer.multiplier)
    if whole_layer(layer):
        return y, 2.0**-24 * (1 + 2.0**-20) * (3 * scale * np.abs(exact) + np.abs(y))
    magnitude = sums(
        layer,
        np.abs(xq) + largest_plane(layer.grid),
        np.abs(wq) + largest_plane(layer.weight.encoding),
    )
    units = layer.row_size + 4 if is_float or layer.op == "depthwise_conv2d" else 2**-20
    return y, 2.0**-24 * (units * scale * magnitude + np.abs(y))


def largest_plane(encoding):
    scales = getattr(encoding, "plane_scale", getattr(encoding, "scales", np.zeros(0)))
    return float(np.abs(scales).max(initial=0))
