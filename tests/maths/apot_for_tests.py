"""APoT in NumPy arrays."""

import numpy as np
import tensorflow as tf

from kerasbits.maths import apot

BITS = range(2, 9)


def cast(x, dtype):
    return tf.constant(np.asarray(x), dtype)


def f64(x):
    return cast(x, "float64")


def table_of(bits, signed, dtype="float64"):
    levels = apot.magnitude_levels(bits - 1 if signed else bits)
    return apot.level_table(float(signed), levels, None, dtype)


def run(x, alpha, bits, signed, dtype="float64", clipped=True):
    x, alpha = cast(x, dtype), cast(alpha, dtype)
    table = table_of(bits, signed, dtype)
    return apot.quantize(x, alpha, float(signed), table, clipped=clipped).numpy()


def codes(x, alpha, bits, signed, dtype="float64"):
    x, alpha = cast(x, dtype), cast(alpha, dtype)
    return apot.codes(x, alpha, float(signed), table_of(bits, signed, dtype)).numpy()


def gradients(x, alpha, bits, signed, upstream=1.0, clipped=True, dtype="float64"):
    x, alpha, g = (cast(a, dtype) for a in (x, alpha, upstream))
    with tf.GradientTape() as tape:
        tape.watch([x, alpha])
        y = apot.quantize(x, alpha, float(signed), table_of(bits, signed, dtype), clipped=clipped)
        total = tf.reduce_sum(y * g)
    dx, dalpha = tape.gradient(total, [x, alpha])
    return dx.numpy(), dalpha.numpy()
