"""What depends on what a process imported before, or on what is installed."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

BLOCKED = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise ModuleNotFoundError(name)
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == {name!r} else real(name, *a)
sys.meta_path.insert(0, Block())
try:
    import kerasbits.tfmot
except ImportError as error:
    print("said:", error)
"""

SAME = """
{imports}
import kerasbits as kb
from kerasbits import tfmot
import keras, numpy as np, tensorflow as tf, tf_keras
import tensorflow_model_optimization.python.core.keras.compat as compat
assert compat.keras.layers.Layer is tf_keras.layers.Layer
assert keras.__version__.startswith("3.") and tf_keras.__version__.startswith("2.")
old = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(3, name="fc")])
new = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="fc")])
new.set_weights(old.get_weights())
x = np.linspace(-1, 1, 20, dtype="float32").reshape(5, 4)
q, k = tfmot.quantize_model(old, "apot", "uniform"), kb.quantize_model(new, "apot", "uniform")
for model in (q, k):
    kb.calibrate(model, x)
assert np.allclose(q(x), k(x), atol=1e-6)
assert kb.report(q) == kb.report(k)
print("said: same")
"""


def said(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return next(line for line in done.stdout.splitlines() if line.startswith("said: "))[6:]


@pytest.mark.parametrize("name", ["tensorflow_model_optimization", "tf_keras"])
def test_without_the_extra_there_is_one_clear_error(name):
    assert said(BLOCKED.format(name=name)) == (
        f"kerasbits.tfmot needs {name}: pip install 'kerasbits[tfmot]'"
    )


def test_another_backend():
    code = "try:\n import kerasbits.tfmot\nexcept ImportError as error:\n print('said:', error)"
    assert "TensorFlow backend of Keras 3" in said(code, KERAS_BACKEND="jax")


@pytest.mark.parametrize(
    "imports",
    [
        "import keras; keras.layers.Dense(2)",
        "import tensorflow as tf; tf.keras.layers.Dense(2)",
        "import tensorflow_model_optimization",
        "import tf_keras, tensorflow",
    ],
    ids=["Keras 3 first", "tf.keras first", "tfmot first", "tf_keras first"],
)
def test_whatever_was_imported_before(imports):
    assert said(SAME.format(imports=imports)) == "same"


def test_tf_keras_where_it_is_what_tf_keras_means():
    check = "assert tf.keras.layers.Dense.__module__.startswith('tf_keras')"
    code = SAME.format(imports=f"import tensorflow as tf; {check}")
    assert said(code, TF_USE_LEGACY_KERAS="1") == "same"
