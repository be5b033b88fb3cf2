"""What a packed layer means, in exact fractions and loops over its definition."""

import itertools
import math
from fractions import Fraction

import numpy as np
from kernels.layers_for_tests import f32

from kerasbits.packed import FloatGrid, Floats, Table, TableGrid, Uniform, UniformGrid


def exact_kernel(tensor):
    """The kernel as an array of fractions."""
    encoding, axis = tensor.encoding, tensor.channel_axis
    kernel = np.empty(tensor.shape, object)

    def fraction(parameter, channel):
        return Fraction(float(np.broadcast_to(parameter, tensor.bits.shape)[channel]))

    for index in np.ndindex(*tensor.shape):
        channel = index[axis]
        if not tensor.bits[channel]:
            kernel[index] = Fraction(0)
            continue
        code = 0 if isinstance(encoding, Floats) else int(tensor.codes[index])
        if isinstance(encoding, Floats):
            value = Fraction(float(encoding.values[index]))
        elif isinstance(encoding, Table):
            value = fraction(encoding.scale, channel) * int(encoding.levels[code])
        elif isinstance(encoding, Uniform):
            value = fraction(encoding.origin, channel) + fraction(encoding.scale, channel) * (
                code - int(np.broadcast_to(encoding.zero, tensor.bits.shape)[channel])
            )
        else:
            value = fraction(encoding.offset, channel) + sum(
                fraction(scale, channel)
                for p, scale in enumerate(encoding.plane_scale)
                if code >> p & 1
            )
        kernel[index] = value
    return kernel


def exact_input(grid, x):
    """The quantized input as an array of fractions."""
    values = np.empty(x.shape, object)
    codes = x if isinstance(grid, FloatGrid) else grid.codes(x)
    for index, code in np.ndenumerate(codes):
        if isinstance(grid, FloatGrid):
            value = Fraction(float(np.clip(code, f32(grid.lo), f32(grid.hi))))
        elif isinstance(grid, UniformGrid):
            steps = int(code) - grid.zero
            value = Fraction(float(f32(grid.origin))) + Fraction(float(f32(grid.step))) * steps
        elif isinstance(grid, TableGrid):
            steps = int(code) - (len(grid.levels) - 1 if grid.signed else 0)
            level = int(grid.levels[abs(steps)]) * (-1 if steps < 0 else 1)
            value = Fraction(float(f32(grid.scale))) * level
        else:
            signs = [1 if int(code) >> (grid.bits - 1 - i) & 1 else -1 for i in range(grid.bits)]
            value = sum(
                Fraction(float(v)) * s for v, s in zip(f32(grid.scales), signs, strict=True)
            )
        values[index] = value
    return values


def exact_output(layer, x):
    """The layer by its definition: a loop over outputs, one over taps; rounded to float32 once."""
    kernel, image = exact_kernel(layer.weight), exact_input(layer.grid, x)
    if layer.op == "dense":
        kernel, image = kernel[None, None], image.reshape(1, 1, *x.shape)
    if layer.op == "depthwise_conv2d":
        kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
    rows, columns, channels, outputs = kernel.shape
    pads, sizes = zip(
        *(window(layer, axis, image.shape[axis + 1]) for axis in range(2)), strict=True
    )
    y = np.empty((len(image), *sizes, outputs))
    for n, i, j, o in np.ndindex(*y.shape):
        first = o // (outputs // layer.groups) * channels
        total = Fraction(0)
        for a, b in itertools.product(range(rows), range(columns)):
            at = [
                place(layer, axis, position, tap, pads[axis], image.shape[axis + 1])
                for axis, position, tap in ((0, i, a), (1, j, b))
            ]
            if None not in at:
                pixel = image[n, at[0], at[1]]
                total += sum(pixel[first + c] * kernel[a, b, c, o] for c in range(channels))
        if layer.multiplier is not None:
            total *= Fraction(float(layer.multiplier[o]))
        y[n, i, j, o] = float(total + Fraction(float(layer.bias[o])))
    y = np.clip(f32(y), f32(layer.act_min), f32(layer.act_max))
    return y[0, 0] if layer.op == "dense" else y


def window(layer, axis, size):
    """Padding before, and output size."""
    reach = (layer.weight.shape[axis] - 1) * layer.dilations[axis] + 1 if layer.op != "dense" else 1
    stride = layer.strides[axis]
    if layer.padding == "same":
        out = math.ceil(size / stride)
        return max((out - 1) * stride + reach - size, 0) // 2, out
    before, after = (0, 0) if layer.padding == "valid" else layer.padding[axis]
    wide = (size - 1) * layer.input_dilations[axis] + 1
    return before, (wide + before + after - reach) // stride + 1


def place(layer, axis, position, tap, pad, size):
    """Index of the pixel that a tap meets, or None between and outside of the pixels."""
    at = position * layer.strides[axis] + tap * layer.dilations[axis] - pad
    index, between = divmod(at, layer.input_dilations[axis])
    return index if not between and 0 <= index < size else None
