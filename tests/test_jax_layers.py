"""Every layer on the JAX backend, in a process of its own as Keras has one backend a process."""

import json
import os
import subprocess
import sys

import pytest
from geometries import CASES, ZOO_PATHS
from jax_process import ENVIRONMENT, ROOT, needs_jax

pytestmark = needs_jax

SCRIPT = """
import json, pathlib, sys
import keras, numpy as np
sys.path.insert(0, "tests")
import kerasbits as kb
from geometries import CASES, exported_output, zoo, zoo_batch
from tiny import compiled, predict

assert keras.backend.backend() == "jax"
found = {}
for case in CASES:
    x, outputs = case.inputs(), []
    for cls in (case.plain, case.quantized):
        keras.utils.set_random_seed(3)
        outputs.append(predict(cls(**case.arguments), x))
    layer = case.linear(kb.Uniform(3, "channel"))
    y = predict(layer, x)
    found[str(case)] = {
        "plain": float(np.abs(outputs[0] - outputs[1]).max()),
        "exported": float(np.abs(exported_output(layer, x) - y).max()),
        "quantized": float(np.abs(np.array(layer.kernel) - layer.quantized_kernel()).max()),
    }

x, y = zoo_batch(4)
model = compiled(zoo("bitpruning", "uniform"), run_eagerly=False, jit_compile=True)
kb.set_shares(model)
start = {v.path: np.array(v) for v in model.trainable_variables}
loss = model.fit(x, y, verbose=0).history["loss"]
still = [v.path for v in model.trainable_variables if not np.any(np.array(v) != start[v.path])]
kb.freeze(model)
path = pathlib.Path(sys.argv[1]) / "zoo.keras"
model.save(path)
again = keras.models.load_model(path)
rows = kb.report(model).rows
pairs = zip(again.variables, model.variables, strict=True)
found["zoo"] = {
    "finite": bool(np.isfinite(loss).all()),
    "still": still,
    "rows": [row.name for row in rows],
    "whole": all(row.bits == round(row.bits) for row in rows),
    "saved": all(np.array_equal(a, b) for a, b in pairs),
}
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


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_layer(found, case):
    assert found[str(case)]["plain"] == 0
    assert found[str(case)]["exported"] < 1e-5
    assert found[str(case)]["quantized"] > 1e-3


def test_every_layer_trains_freezes_and_saves(found):
    zoo = found["zoo"]
    assert zoo["finite"]
    assert zoo["still"] == []
    assert zoo["rows"] == list(ZOO_PATHS)
    assert zoo["whole"]
    assert zoo["saved"]
