"""Export from the JAX backend gives the files of the TensorFlow backend."""

import json
import os
import subprocess
import sys

import keras
import pytest
from example_modules import example
from exportable import images
from geometries import zoo, zoo_batch
from jax_process import ENVIRONMENT, ROOT, needs_jax
from keras import layers
from operator_names import operator_names

import kerasbits as kb
from tflite_export import export

pytestmark = needs_jax

SCRIPT = """
import json, pathlib, sys
import keras
sys.path.insert(0, "tests")
import kerasbits as kb
from tflite_export import export
from tflite_export.converter import ConversionError

folder, found = pathlib.Path(sys.argv[1]), {"backend": keras.backend.backend()}
for name, file, options in json.loads(sys.argv[2]):
    model = keras.models.load_model(folder / f"{name}.keras")
    result = export(model, folder / f"jax_{name}_{file}", **options)
    checked = result.verification
    found[f"{name} {file}"] = [checked.max_error, checked.layers, checked.codes]

@keras.saving.register_keras_serializable()
class Mine(keras.layers.Layer):
    "Exists in this process alone."
    def call(self, x):
        return x * x if self.plain else keras.ops.fft((x, x))[0]
    def __init__(self, plain, **kwargs):
        super().__init__(**kwargs)
        self.plain = plain
    def get_config(self):
        return {**super().get_config(), "plain": self.plain}

for plain in (True, False):
    inputs = keras.Input((4,))
    x = kb.layers.QuantDense(4, kernel_quantizer="uniform")(inputs)
    model = keras.Model(inputs, Mine(plain)(x))
    try:
        found[f"plain {plain}"] = export(model, folder / "mine.tflite").verification.max_error
    except ConversionError as error:
        found[f"plain {plain}"] = str(error)
print(json.dumps(found))
"""


def narrow():
    """Convolutions of one channel, which JAX writes in ways of its own, and products of rank 3."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(1, 1, activation="relu", name="point")(image)
    x = layers.Conv2D(1, 3, padding="same", dilation_rate=2, name="dilated")(x)
    x = layers.SeparableConv2D(1, 3, padding="same", name="separable")(x)
    x = layers.Conv2DTranspose(1, 2, strides=2, name="up")(x)
    x = layers.AveragePooling2D(2)(layers.BatchNormalization()(x))
    x = layers.Reshape((64, 1))(layers.Conv2D(1, 3, padding="same", activation="gelu")(x))
    x = layers.Conv1D(2, 3, strides=2, padding="causal", name="line")(x)
    x = layers.Dense(3, name="product")(x)
    x = layers.Dense(4, activation="softmax", name="last")(layers.Flatten()(x))
    return keras.Model(image, x, name="narrow")


def quantized(name):
    kernel, inputs = kb.Uniform(4, granularity="channel"), kb.Uniform(8)
    if name == "zoo":
        model, x = zoo(kernel, inputs), [zoo_batch(16)[0]]
    else:
        plain = narrow() if name == "narrow" else example("networks").lenet5()
        model = kb.quantize_model(plain, kernel, inputs)
        x = images(16, plain.input_shape[1:])
    kb.calibrate(model, x)
    kb.freeze(model)
    return model


STOCK = {"profile": "stock"}
FILES = [
    ("lenet5", "packed.tflite", {}),
    ("narrow", "stock.tflite", STOCK),
    ("zoo", "m.kbits", {}),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The folder with the files of both, and what JAX found."""
    folder = tmp_path_factory.mktemp("jax_export")
    for name in ("lenet5", "narrow", "zoo"):
        model = quantized(name)
        model.save(folder / f"{name}.keras")
        for file, options in [(f, o) for n, f, o in FILES if n == name]:
            export(model, folder / f"tf_{name}_{file}", verify=False, **options)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), json.dumps(FILES)],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert theirs["backend"] == "jax"
    return folder, theirs


@pytest.mark.parametrize(("name", "file", "options"), FILES)
def test_the_same_file(found, name, file, options):
    """Scales that a backend divides in its own way may differ in the last bit; nothing else may."""
    folder, theirs = found
    error, layers_checked, codes = theirs[f"{name} {file}"]
    assert error <= 1e-4
    assert layers_checked == {"lenet5": 5, "narrow": 9, "zoo": 14}[name]
    assert codes > 0
    ours, jax = ((folder / f"{b}_{name}_{file}").read_bytes() for b in ("tf", "jax"))
    if file.endswith(".tflite"):
        assert operator_names(jax) == operator_names(ours)
    assert len(jax) == len(ours)
    differing = sum(a != b for a, b in zip(jax, ours, strict=True))
    assert differing < 0.05 * len(ours)


def test_classes_of_the_script_alone(found):
    """No other process knows them; what JAX itself writes may do, and is verified as ever."""
    _, theirs = found
    assert theirs["plain True"] <= 1e-4
    assert "cannot load it" in theirs["plain False"]
    assert "Mine" in theirs["plain False"]
    assert "KERAS_BACKEND=tensorflow" in theirs["plain False"]
