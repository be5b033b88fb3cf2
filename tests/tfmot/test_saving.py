"""Saved and loaded, a model is the same to the last bit, and goes on training as if unbroken."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from tf_keras_models import (
    METHODS,
    batch,
    compiled,
    inputs_for,
    network,
    outputs,
    same_weights,
    small,
    trained,
)

import kerasbits as kb
from kerasbits import sites
from kerasbits.tfmot import (
    KerasbitsQuantizeConfig,
    KerasbitsQuantizeScheme,
    load_model,
    quantize_annotate_model,
    quantize_apply,
    quantize_model,
)

Q = tfmot.quantization.keras

FORMATS = ("m.h5", "m.keras", "folder")
TESTS = pathlib.Path(__file__).parents[1]


def in_training(method, make=small, **kwargs):
    """A model in the middle of a training."""
    tf_keras.utils.set_random_seed(3)
    model = quantize_model(make(), method, inputs_for(method), rate=2.0)
    trained(compiled(model, **{"run_eagerly": True, **kwargs}))
    return model


@pytest.mark.parametrize("method", METHODS)
def test_every_format_is_exact(method, tmp_path):
    make = network if method == "apot" else small
    model, x = in_training(method, make), batch()[0]
    expected = outputs(model, x)
    for name in FORMATS:
        model.save(tmp_path / name)
        loaded = load_model(tmp_path / name)
        assert same_weights(model, loaded), name
        np.testing.assert_array_equal(outputs(loaded, x), expected, name)
        assert kb.report(loaded) == kb.report(model)
        for a, b in zip(sites.places(model), sites.places(loaded), strict=True):
            assert (a.path, a.host.site, a.quantizer) == (b.path, b.host.site, b.quantizer)
            assert a.host.rate == b.host.rate == 2.0


def test_a_saved_model_serves_quantized_kernels(tmp_path):
    """Also without tf_keras; and when the layers in the wrappers were called alone, as by tfmot."""
    config, x = KerasbitsQuantizeConfig("least_squares_binary", "uniform"), batch()[0]
    annotated = network(lambda layer: Q.quantize_annotate_layer(layer, config))
    model = Q.quantize_apply(annotated, KerasbitsQuantizeScheme())
    kb.calibrate(model, x)
    kb.freeze(model)
    model.save(tmp_path / "folder")
    served = tf.saved_model.load(str(tmp_path / "folder")).signatures["serving_default"]
    found = next(iter(served(tf.constant(x)).values()))
    np.testing.assert_allclose(found, outputs(model, x), rtol=1e-5, atol=1e-5)
    plain = tf_keras.models.clone_model(network())
    for name in ("conv", "norm", "sep", "last"):
        layer = model.get_layer(name)
        plain.get_layer(name).set_weights(getattr(layer, "layer", layer).get_weights())
    assert np.abs(plain(x) - found).max() > 0.01  # float kernels give something else


@pytest.mark.parametrize("name", ["w.h5", "w.weights.h5", "checkpoint"])
def test_weights_alone(name, tmp_path):
    model = in_training("bayesian_bits")
    model.save_weights(tmp_path / name)
    other = quantize_model(small(), "bayesian_bits", "bayesian_bits", rate=2.0)
    assert not same_weights(model, other)
    other.load_weights(tmp_path / name)
    assert same_weights(model, other)


@pytest.mark.parametrize("method", ["bayesian_bits", "bsq"])
@pytest.mark.parametrize("name", ["m.h5", "m.keras"])
def test_training_goes_on_as_if_unbroken(method, name, tmp_path):
    tf.config.experimental.enable_op_determinism()
    model = in_training(method, run_eagerly=False)
    model.save(tmp_path / name)
    loaded = load_model(tmp_path / name)
    assert trained(model, epochs=2) == trained(loaded, epochs=2)
    assert same_weights(model, loaded)


def test_a_fresh_process_needs_no_scope(tmp_path):
    """By `tf_keras.models.load_model` itself, once `kerasbits.tfmot` is imported."""
    x = batch()[0]
    np.save(tmp_path / "x.npy", x)
    for method in METHODS:
        model = in_training(method)
        np.save(tmp_path / f"{method}.npy", outputs(model, x))
        for name in FORMATS if method == "bsq" else FORMATS[:2]:
            model.save(tmp_path / f"{method}_{name}")
    code = f"""
import json, pathlib, numpy as np, tf_keras, kerasbits.tfmot
folder = pathlib.Path({str(tmp_path)!r})
x = np.load(folder / "x.npy")
found = {{}}
for path in sorted(folder.glob("*_m.*")) + sorted(folder.glob("*_folder")):
    expected = np.load(folder / (path.name.rpartition("_")[0] + ".npy"))
    y = tf_keras.models.load_model(path)(x, training=False).numpy()
    found[path.name] = float(np.abs(y - expected).max())
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=TESTS.parent,
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(TESTS.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == dict.fromkeys(found, 0.0)
    assert len(found) == 2 * len(METHODS) + 1


def test_an_annotated_model_is_saved_too(tmp_path):
    annotated = quantize_annotate_model(small(), "apot", "uniform")
    annotated.save(tmp_path / "m.h5")
    loaded = load_model(tmp_path / "m.h5")
    one, two = quantize_apply(annotated), quantize_apply(loaded)
    assert same_weights(one, two)
    assert kb.report(one) == kb.report(two)


def test_frozen_stays_frozen(tmp_path):
    model = in_training("bitpruning")
    kb.freeze(model)
    model.save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras")
    before = kb.report(loaded)
    trained(loaded)
    assert [r.bits for r in kb.report(loaded).rows] == [r.bits for r in before.rows]
    assert float(tf.add_n(loaded.losses)) == 0


def test_custom_objects(tmp_path):
    class Twice(tf_keras.layers.Layer):
        def call(self, x):
            return 2 * x

    source = tf_keras.layers.Input((4,))
    plain = tf_keras.Model(source, Twice()(tf_keras.layers.Dense(3)(source)))
    model = quantize_model(plain, "uniform")
    model.save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras", custom_objects={"Twice": Twice})
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(outputs(loaded, x), outputs(model, x))
