"""The Keras host on the JAX backend, in a process of its own as Keras has one backend a process."""

import json
import os
import subprocess
import sys

import pytest
from jax_process import ENVIRONMENT, ROOT, needs_jax

from kerasbits.quantizers import NAMES

pytestmark = needs_jax

SCRIPT = """
import json, pathlib, sys
import keras, numpy as np
sys.path.insert(0, "tests")
import kerasbits as kb
from tiny import METHODS, batch, compiled, dense_model, inputs_like, mixed_model, predict

assert keras.backend.backend() == "jax"
folder = pathlib.Path(sys.argv[1])
x_images, y_images = batch((5, 5, 2))
found = {}
for name, method in METHODS.items():
    images = name == "uniform"  # one convolution; compiling takes long
    x, y = (x_images, y_images) if images else batch()
    build = mixed_model if images else dense_model
    model = compiled(build(method, inputs_like(method)), run_eagerly=False, jit_compile=True)
    kb.set_shares(model)
    weak = [v.path for v in model.variables if v.value.weak_type]
    start = {v.path: np.array(v) for v in model.trainable_variables}
    history = model.fit(x, y, batch_size=8, epochs=1, verbose=0,
                        callbacks=[kb.callbacks.LogBits()]).history
    still = [v.path for v in model.trainable_variables if not np.any(np.array(v) != start[v.path])]
    seen = [float(p.host.state().get("seen", 1)) for p in kb.sites.places(model, "input")]
    kb.adjust(model)
    kb.freeze(model)
    weak += [v.path for v in model.variables if v.value.weak_type]
    bits = [row.bits for row in kb.report(model).rows]
    if name in ("bitpruning", "bsq"):
        model.fit(x, y, batch_size=8, verbose=0)
    path = folder / f"{name}.keras"
    model.save(path)
    again = keras.models.load_model(path)
    layer = model.layers[-1]
    grid = layer.input_grid()
    kernel, bias = layer.packed_kernel().decode(), np.array(layer.bias)
    probe = np.random.default_rng(1).normal(size=(4, kernel.shape[0])).astype(np.float32)
    floats = not hasattr(grid, "codes")
    used = np.clip(probe, grid.lo, grid.hi) if floats else grid.values(grid.codes(probe))
    found[name] = {
        "finite": bool(np.isfinite(history["loss"]).all()),
        "still": still,
        "weak": weak,
        "seen": seen,
        "logged": f"bits/{layer.name}" in history,
        "whole": all(b == round(b) or name == "bayesian_bits" for b in bits),
        "bits kept": bits == [row.bits for row in kb.report(model).rows],
        "saved": float(np.abs(predict(again, x) - predict(model, x)).max()),
        "packed": float(np.abs(np.array(layer(probe)) - (used @ kernel + bias)).max()),
    }

class Inside(keras.Model):
    def __init__(self):
        super().__init__()
        self.fc = kb.layers.QuantDense(3, kernel_quantizer="uniform", input_quantizer="uniform")
    def call(self, x):
        return self.fc(x)

inside = compiled(Inside(), run_eagerly=False)
inside.fit(*batch(), verbose=0)
found["subclassed"] = float(inside.fc.kernel_host.state()["range_unit"])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path_factory.mktemp("jax"))],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", NAMES)
def test_train_freeze_and_save(found, name):
    result = found[name]
    assert result["finite"]
    assert result["logged"]
    assert result["weak"] == []  # a step would change their type, and the next be compiled again
    assert result["seen"] == [1, 1]  # the first batch gave the ranges
    # The latent weights of BSQ wait for freezing.
    assert [path for path in result["still"] if not path.endswith("/latent")] == []
    assert result["whole"]
    assert result["bits kept"]
    assert result["saved"] == 0
    assert result["packed"] < 1e-5  # float sums of other orders


def test_subclassed_model(found):
    """The state follows the kernel, which JAX creates only after tracing."""
    assert 0 < found["subclassed"] < 1


SEARCH = """
import sys
import jax, numpy as np
sys.path.insert(0, "tests")
from kerasbits.maths import least_squares, least_squares_search
from maths.least_squares_errors_for_tests import least_error, squared_error

x = np.random.default_rng(0).normal(size=(64, 4096)).astype(np.float32)
x[::2] = np.maximum(x[::2], 0)
for scheme in ("ls2", "lst"):
    search = jax.jit(lambda x: least_squares_search.search(x, scheme))
    assert "stablehlo.while" in search.lower(x).as_text()  # row by row
    error = squared_error(x, np.asarray(search(x)))
    assert (error <= least_error(x, scheme) * (1 + 2e-4)).all(), scheme
greedy = jax.jit(lambda x: least_squares_search.greedy(x, 2))(x)
np.testing.assert_allclose(greedy, least_squares.solve_gf(x, 2), rtol=1e-4)
print("found")
"""


def test_scales_of_long_inputs_are_found_row_by_row():
    done = subprocess.run(
        [sys.executable, "-c", SEARCH],
        env={**os.environ, **ENVIRONMENT},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "found" in done.stdout, done.stderr[-3000:]
