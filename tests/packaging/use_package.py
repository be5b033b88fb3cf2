"""What somebody does with an installed kerasbits, and what came of it, as JSON.

    python use_package.py FOLDER

Exports a tiny network to every kind of file in FOLDER, runs each, and tells: where the packages
lie, the error of each file (the largest difference from the model, or the exception), and the
RuntimeWarnings.
"""

import json
import pathlib
import sys
import warnings

import keras
import numpy as np

import kerasbits as kb
import tflite_export

FILES = {
    "packed": ("m.tflite", "packed"),
    "stock": ("stock.tflite", "stock"),
    "kbits": ("m.kbits", "packed"),
}


def network():
    """A frozen network with a convolution and a dense layer."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    quantized = kb.quantize_model(model, kernel=kb.Uniform(3), inputs=kb.Uniform(8))
    kb.calibrate(quantized, images(16))
    kb.freeze(quantized)
    return quantized


def images(count):
    """Random inputs."""
    return np.random.default_rng(count).normal(size=(count, 6, 6, 2)).astype(np.float32)


def main(folder):
    """Do it, and print what came of it."""
    told = {"packages": [kb.__file__, tflite_export.__file__]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, x = network(), images(4)
        expected = model.predict(x, verbose=0)
        for kind, (name, profile) in FILES.items():
            tflite_export.export(model, folder / name, profile=profile, sample=images(2))
            try:
                y = tflite_export.Interpreter(folder / name).predict(x)
                told[kind] = float(np.abs(y - expected).max())
            except Exception as error:
                told[kind] = f"{type(error).__name__}: {error}"
    told["warnings"] = [str(w.message) for w in caught if w.category is RuntimeWarning]
    print(json.dumps(told))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
