"""BitPruning in float64 and NumPy arrays."""

import numpy as np
import tensorflow as tf

from kerasbits.maths import bitpruning


def f64(x):
    return tf.constant(np.asarray(x), tf.float64)


def run(v, n, lo, hi, max_bits=16, whole_zero=False):
    return bitpruning.quantize(f64(v), f64(n), f64(lo), f64(hi), max_bits, whole_zero).numpy()


def gradients(v, n, lo, hi, upstream, max_bits=16, whole_zero=False):
    v, n, lo, hi = map(f64, (v, n, lo, hi))
    with tf.GradientTape() as tape:
        tape.watch([v, n, lo, hi])
        y = bitpruning.quantize(v, n, lo, hi, max_bits, whole_zero)
    dv, dn, dlo, dhi = tape.gradient(y, [v, n, lo, hi], output_gradients=f64(upstream))
    assert dlo is None
    assert dhi is None  # the range is a constant
    return dv.numpy(), dn.numpy()
