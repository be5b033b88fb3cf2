"""Functions that use each operation of .kbits files, and the files of them."""

import functools

import numpy as np
import tensorflow as tf

from tflite_export import flatbuffer
from tflite_export.kbits.writer import write_marked
from tflite_export.marked import Marked

IMAGE = (1, 6, 7, 4)
RNG = np.random.default_rng(5)
CHANNELS = RNG.normal(size=(4,)).astype(np.float32)
ROWS = RNG.normal(size=(6, 1, 1)).astype(np.float32)
MATRIX = RNG.normal(size=(4, 5)).astype(np.float32)
nn, raw = tf.nn, tf.raw_ops


def kernel(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def resized(x, size, method, **options):
    function = getattr(raw, f"Resize{method}")
    return function(images=x, size=list(size), **options)


FUNCTIONS = {
    "ADD": lambda x: [x + CHANNELS, nn.relu(x + ROWS), x + x, nn.relu6(x + x * 3)],
    "SUB": lambda x: [x - CHANNELS, ROWS - x],
    "MUL": lambda x: [x * CHANNELS, x * x[:, :, :1], x * 2.5],
    "DIV": lambda x: [x / CHANNELS, ROWS / (tf.abs(x) + 1)],
    "MAXIMUM": lambda x: [tf.maximum(x, CHANNELS)],
    "MINIMUM": lambda x: [tf.minimum(x, x[:, ::-1])],
    "POW": lambda x: [tf.pow(tf.abs(x), CHANNELS), tf.pow(tf.abs(x), 3.0)],
    "SQUARED_DIFFERENCE": lambda x: [tf.math.squared_difference(x, CHANNELS)],
    "CLAMP": lambda x: [nn.relu(x), nn.relu6(x * 4), tf.clip_by_value(x, -1, 1)],
    "LEAKY_RELU": lambda x: [nn.leaky_relu(x, 0.3)],
    "ELU": lambda x: [nn.elu(x)],
    "LOGISTIC": lambda x: [tf.sigmoid(x * 30), nn.silu(x)],
    "TANH": lambda x: [tf.tanh(x)],
    "HARD_SWISH": lambda x: [x * nn.relu6(x + 3) / 6],
    "GELU": lambda x: [nn.gelu(x, False), nn.gelu(x[:, ::-1], True)],
    "EXP": lambda x: [tf.exp(x)],
    "LOG": lambda x: [tf.math.log(tf.abs(x) + 0.1)],
    "SQRT": lambda x: [tf.sqrt(tf.abs(x))],
    "RSQRT": lambda x: [tf.math.rsqrt(tf.abs(x) + 0.1), nn.l2_normalize(x, -1)],
    "NEG": lambda x: [-x],
    "ABS": lambda x: [tf.abs(x)],
    "SQUARE": lambda x: [tf.square(x)],
    "SIN": lambda x: [tf.sin(x)],
    "COS": lambda x: [tf.cos(x)],
    "FLOOR": lambda x: [tf.floor(x * 3)],
    "CEIL": lambda x: [tf.math.ceil(x * 3)],
    "ROUND": lambda x: [tf.round(x * 3), tf.round(tf.floor(x * 3) / 2)],
    "SIGN": lambda x: [tf.sign(x), tf.sign(nn.relu(x))],
    "MAX_POOL": lambda x: [
        nn.max_pool2d(x, (3, 2), (2, 1), "SAME"),
        nn.relu(nn.max_pool2d(x, 2, 2, "VALID")),
        nn.max_pool2d(tf.tile(x, (1, 1, 1, 20)), (3, 2), (2, 1), "SAME"),  # longer lines
    ],
    "AVERAGE_POOL": lambda x: [
        nn.avg_pool2d(x, (3, 2), (2, 1), "SAME"),
        nn.avg_pool2d(x, (2, 5), (1, 3), "VALID"),
        nn.avg_pool2d(x, 5, 4, "SAME"),
    ],
    "REDUCE_MEAN": lambda x: [tf.reduce_mean(x, (1, 2)), tf.reduce_mean(x, -1, keepdims=True)],
    "REDUCE_SUM": lambda x: [tf.reduce_sum(x, 2), tf.reduce_sum(x, (0, 1, 2, 3))],
    "REDUCE_MAX": lambda x: [tf.reduce_max(x, (1, 3))],
    "REDUCE_MIN": lambda x: [tf.reduce_min(x, (1, 2), keepdims=True)],
    "REDUCE_PROD": lambda x: [tf.reduce_prod(x, 1)],
    "SOFTMAX": lambda x: [nn.softmax(x * 20), nn.softmax(x, 1)],
    "LOG_SOFTMAX": lambda x: [nn.log_softmax(x * 5)],
    "RESHAPE": lambda x: [tf.reshape(x, (7, 24)), tf.squeeze(x, 0), x[:, None]],
    "TRANSPOSE": lambda x: [tf.transpose(x, (0, 3, 1, 2)), tf.transpose(x, (2, 1, 0, 3))],
    "SLICE": lambda x: [
        x[:, 1:-1, ::2],
        x[:, ::-1, 5:1:-2, 1],
        tf.slice(x, (0, 2, 0, 1), (1, 3, -1, 2)),
        *tf.split(x, 2, 3),
        *tf.split(x, (1, 2, 4), 2),
        *tf.unstack(x, axis=3)[1:3],
    ],
    "CONCATENATION": lambda x: [
        tf.concat([x, x[:, :2], x], 1),
        tf.concat([x, CHANNELS * tf.ones(IMAGE)], -1),
        tf.stack([x, x * 2], 2),
    ],
    "PAD": lambda x: [
        tf.pad(x, ((0, 0), (1, 2), (0, 3), (0, 1))),
        tf.pad(x, ((0, 0), (2, 1), (0, 0), (0, 0)), constant_values=-7.5),
    ],
    "MIRROR_PAD": lambda x: [
        tf.pad(x, ((0, 0), (2, 5), (1, 0), (0, 0)), "REFLECT"),
        tf.pad(x, ((0, 0), (6, 2), (0, 1), (3, 4)), "SYMMETRIC"),
    ],
    "TILE": lambda x: [tf.tile(x, (2, 1, 3, 2)), tf.broadcast_to(x[:, :1] * 2, (3, 6, 7, 4))],
    "RESIZE_NEAREST": lambda x: [
        resized(x, (12, 14), "NearestNeighbor"),
        resized(x, (11, 3), "NearestNeighbor", align_corners=True),
        resized(x, (9, 5), "NearestNeighbor", half_pixel_centers=True),
        resized(x, (1, 1), "NearestNeighbor", align_corners=True),
    ],
    "RESIZE_BILINEAR": lambda x: [
        resized(x, (12, 14), "Bilinear"),
        resized(x, (11, 3), "Bilinear", align_corners=True),
        resized(x, (9, 5), "Bilinear", half_pixel_centers=True),
        resized(x, (1, 20), "Bilinear", half_pixel_centers=True),
    ],
    "BATCH_MATMUL": lambda x: [
        tf.matmul(x, x, transpose_b=True),
        tf.matmul(x, x, transpose_a=True),
        tf.matmul(tf.tile(x, (3, 1, 1, 1)), x[0, :, :4]),
        tf.matmul(x[0, 0], x[0, 1], transpose_b=True),
    ],
    "CAST": lambda x: [tf.cast(tf.cast(x * 3, tf.int32), tf.float32)],
    "PACKED": lambda x: [
        nn.conv2d(x, kernel(3, 2, 4, 5), (2, 1), "SAME"),
        nn.relu6(nn.conv2d(x, kernel(2, 2, 4, 3), 1, "VALID") + kernel(3)),
        nn.conv2d(x, kernel(3, 3, 4, 2), 1, "SAME", dilations=2),
        nn.conv2d(x, kernel(2, 3, 4, 2), 1, "VALID", dilations=(3, 2)),
        nn.conv2d(x, kernel(3, 3, 2, 6), 1, "SAME"),
        nn.depthwise_conv2d(x, kernel(3, 3, 4, 1), (1, 2, 2, 1), "SAME"),
        nn.depthwise_conv2d(x, kernel(2, 3, 4, 3), (1, 1, 1, 1), "VALID"),
        nn.depthwise_conv2d(x, kernel(3, 3, 4, 1), (1, 1, 1, 1), "SAME", dilations=(2, 2)),
        nn.conv2d_transpose(x, kernel(3, 3, 5, 4), (1, 12, 14, 5), 2, "SAME"),
        nn.conv2d_transpose(x, kernel(3, 2, 5, 4), (1, 13, 20, 5), (2, 3), "VALID"),
        nn.conv2d_transpose(x, kernel(2, 2, 2, 4), (1, 18, 21, 2), 3, "SAME"),
        nn.relu(tf.matmul(tf.reshape(x, (42, 4)), MATRIX) + kernel(5)),
        tf.matmul(x, MATRIX),
    ],
    "blocks": lambda x: [
        nn.depth_to_space(x, 2),
        nn.space_to_depth(x[:, :, :6], 2),
        tf.space_to_batch(x, (2, 3), ((0, 2), (1, 1))),
        tf.space_to_batch(x[0], (3,), ((1, 1),)),
        tf.batch_to_space(tf.tile(x, (6, 1, 1, 1)), (3, 2), ((1, 0), (2, 1))),
        tf.add_n([x, x * 2, x * 3]),
    ],
}


def converted_function(function):
    spec = tf.TensorSpec(IMAGE, tf.float32)
    concrete = tf.function(function).get_concrete_function(spec)
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()


@functools.cache
def converted(name):
    """The stock file of a function, and the .kbits file of the same graph."""
    stock = converted_function(FUNCTIONS[name])
    return stock, write_marked(Marked(flatbuffer.read(stock), {}, {})).data
