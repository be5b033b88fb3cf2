"""Saved models are the same models, in another process and in mid-training."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from geometries import zoo, zoo_batch
from tiny import METHODS, batch, compiled, inputs_like, mixed_model, predict

import kerasbits as kb
from kerasbits import sites

ROOT = pathlib.Path(__file__).parents[2]
STAGES = ("fresh", "training", "frozen")
ZOO = ("bsq", "bayesian_bits")
"""Methods that the model of every layer is saved with: a replaced kernel, and random numbers."""
X, Y = batch((5, 5, 2))
ZOO_X, ZOO_Y = zoo_batch(4)

LOAD_ALL = """
import json, pathlib, sys
import keras, numpy as np
import kerasbits
folder = pathlib.Path(sys.argv[1])
x = np.load(folder / "x.npy")
zoo_x = [np.load(folder / f"zoo{i}.npy") for i in range(2)]
found = {}
for path in sorted(folder.glob("*.keras")):
    model = keras.models.load_model(path)
    y = keras.ops.convert_to_numpy(model(zoo_x if "zoo" in path.stem else x, training=False))
    report = kerasbits.report(model)
    found[path.stem] = {
        "difference": float(np.abs(y - np.load(path.with_suffix(".npy"))).max()),
        "bits": report.average_bits,
        "bytes": report.weight_bytes,
        "shares": [p.host.site.share for p in kerasbits.sites.places(model)],
        "compiled": model.compiled,
    }
print(json.dumps(found))
"""


def trained(method, epochs, model=None, start=0):
    if model is None:
        model = compiled(mixed_model(method, inputs_like(method)))
        kb.set_shares(model)
    model.fit(X, Y, batch_size=8, epochs=epochs, initial_epoch=start, shuffle=False, verbose=0)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Every method at every stage, saved; then what a fresh process says of the files."""
    folder = tmp_path_factory.mktemp("saved")
    np.save(folder / "x.npy", X)
    for i, values in enumerate(ZOO_X):
        np.save(folder / f"zoo{i}.npy", values)
    here = {}

    def save(stem, model, x):
        model.save(folder / f"{stem}.keras")
        np.save(folder / f"{stem}.npy", predict(model, x))
        report = kb.report(model)
        here[stem] = {
            "bits": report.average_bits,
            "bytes": report.weight_bytes,
            "shares": [p.host.site.share for p in sites.places(model)],
        }

    for name, method in METHODS.items():
        model = compiled(mixed_model(method, inputs_like(method)))
        kb.set_shares(model)
        for stage in STAGES:
            if stage == "training":
                trained(method, 2, model)
            elif stage == "frozen":
                kb.freeze(model)
                trained(method, 1, model)
            save(f"{name}-{stage}", model, X)
    for name in ZOO:
        model = compiled(zoo(METHODS[name], inputs_like(METHODS[name])))
        kb.set_shares(model)
        model.fit(ZOO_X, ZOO_Y, verbose=0)
        save(f"zoo_{name}-training", model, ZOO_X)
        kb.freeze(model)
        save(f"zoo_{name}-frozen", model, ZOO_X)
    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, str(folder)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return here, json.loads(done.stdout.splitlines()[-1])


MODELS = [f"{name}-{stage}" for name in METHODS for stage in STAGES]
MODELS += [f"zoo_{name}-{stage}" for name in ZOO for stage in STAGES[1:]]


@pytest.mark.parametrize("stem", MODELS)
def test_loads_in_a_fresh_process(saved, stem):
    here, there = (found[stem] for found in saved)
    assert there["difference"] == 0
    assert there["compiled"]
    assert {key: there[key] for key in here} == here


def test_stages_differ(saved):
    """What is compared above is not the same model three times."""
    here, _ = saved
    assert here["bitpruning-fresh"]["bits"] > here["bitpruning-training"]["bits"]
    assert here["bitpruning-training"]["bits"] != here["bitpruning-frozen"]["bits"]
    assert 0 < here["bitpruning-fresh"]["shares"][0] < 1


@pytest.mark.parametrize("name", METHODS)
def test_resumed_training_is_the_unbroken_one(name, tmp_path):
    method = METHODS[name]
    unbroken = trained(method, 1)
    unbroken.save(tmp_path / "half.keras")
    trained(method, 2, unbroken, start=1)
    keras.utils.set_random_seed(99)
    resumed = keras.models.load_model(tmp_path / "half.keras")
    trained(method, 2, resumed, start=1)
    for ours, theirs in zip(unbroken.variables, resumed.variables, strict=True):
        # The same program on the same numbers; random numbers too, their state is saved.
        np.testing.assert_allclose(theirs, ours, rtol=1e-6, atol=1e-7, err_msg=ours.path)
    pairs = zip(unbroken.optimizer.variables, resumed.optimizer.variables, strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-7, err_msg=ours.path)


@pytest.mark.parametrize("name", METHODS)
def test_weights_only(name, tmp_path):
    method = METHODS[name]
    model = trained(method, 1)
    kb.freeze(model)
    model.save_weights(tmp_path / "m.weights.h5")
    other = mixed_model(method, inputs_like(method), seed=50)
    assert np.any(predict(other, X) != predict(model, X))
    other.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(predict(other, X), predict(model, X))
    assert [p.host.site for p in sites.places(other)] == [p.host.site for p in sites.places(model)]
    again = mixed_model(method, inputs_like(method), seed=51)
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(predict(again, X), predict(model, X))


def test_float_kernel_is_what_is_stored(tmp_path):
    """Not the quantized one: training goes on from the float values."""
    model = mixed_model(kb.Uniform(2), kb.Uniform(2))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for name in ("conv", "fc"):
        ours, theirs = model.get_layer(name), loaded.get_layer(name)
        np.testing.assert_array_equal(theirs.kernel, ours.kernel)
        assert np.any(theirs.quantized_kernel() != theirs.kernel.numpy())


def test_json_architecture():
    model = mixed_model("bsq", kb.Uniform(3))
    again = keras.models.model_from_json(model.to_json())
    assert again.get_layer("fc").kernel_quantizer == kb.BSQ()
    assert again.get_layer("fc").input_quantizer == kb.Uniform(3)


def test_savedmodel_export(tmp_path):
    """TensorFlow finds every variable of the hosts, and serves the same numbers."""
    import tensorflow as tf

    model = trained(kb.BayesianBits(), 1)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.serve(X), predict(model, X), rtol=1e-5, atol=1e-6)
