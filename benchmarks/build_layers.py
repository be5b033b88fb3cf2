"""Build the layers to time: stock files for XNNPACK, and packed layers of ours.

Run as a program by `python -m benchmarks`, so that TensorFlow is not loaded where times are taken.
"""

from __future__ import annotations

import pathlib
import shutil

import keras
import numpy as np
import tensorflow as tf

import kerasbits as kb
from benchmarks.cases import KINDS, SHAPES, THREADED, Kind, Shape, blob_name, packed_file
from benchmarks.folders import BLOBS, stock_file
from tflite_export import export
from tflite_export.blob.writer import write_blob
from tflite_export.collect import collect


def main() -> None:
    """Build what is missing of the stock files, and all layers of ours anew."""
    shutil.rmtree(BLOBS, ignore_errors=True)
    for shape in SHAPES:
        keras.utils.set_random_seed(0)
        model = keras_layer(shape)
        write_stock(model, shape.input, shape.key)
        folder = BLOBS / shape.key
        folder.mkdir(parents=True)
        for kind in KINDS[shape.kind]:
            q = quantized(model, shape, kind)
            (layer,) = collect(q).layers.values()
            (folder / blob_name(kind)).write_bytes(write_blob(layer.packed))
            if shape.kind == "conv" and kind.name in THREADED:
                export(q, packed_file(shape, kind.name), verify=False)


def keras_layer(shape: Shape) -> keras.Model:
    """A model of one layer."""
    layers = keras.layers
    layer = {
        "conv": lambda: layers.Conv2D(shape.channels, 3, shape.stride, padding="same"),
        "depthwise": lambda: layers.DepthwiseConv2D(3, shape.stride, padding="same"),
        "dense": lambda: layers.Dense(shape.channels),
    }[shape.kind]()
    return keras.Sequential([keras.Input(shape.input[1:], batch_size=1), layer])


def quantized(model: keras.Model, shape: Shape, kind: Kind) -> keras.Model:
    """The layer as the methods of `kind` leave it, calibrated on normal inputs, not trained."""
    q = kb.quantize_model(model, kind.kernel, kind.inputs)
    kb.calibrate(q, samples(shape.input, 1)[0])
    kb.freeze(q)
    return q


def write_stock(model: keras.Model, shape: tuple[int, ...], key: str) -> None:
    """The float32 file of a model and the int8 one, whose ends are int8 too, unless they are there.

    Args:
        model: a float model.
        shape: of its input, with a batch axis.
        key: name of the files.
    """
    data = samples(shape, 4)
    for form, convert in (("float", as_float), ("int8", as_int8)):
        path = stock_file(key, form)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = path.with_suffix(".part")
            whole.write_bytes(convert(model, data))
            pathlib.Path(whole).replace(path)


def as_float(model: keras.Model, data: list[np.ndarray]) -> bytes:
    """The stock converter's float32 file."""
    return tf.lite.TFLiteConverter.from_keras_model(model).convert()


def as_int8(model: keras.Model, data: list[np.ndarray]) -> bytes:
    """The stock converter's file after post-training quantization, all in int8."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([x] for x in data)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def samples(shape: tuple[int, ...], count: int) -> list[np.ndarray]:
    """Normal inputs."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for _ in range(count)]


if __name__ == "__main__":
    main()
