"""Two replicas give what one worker gives with the same global batch, for every method."""

import os
import pathlib

import numpy as np
import pytest
from jax_process import ENVIRONMENT as JAX
from jax_process import needs_jax
from worker_processes import Running, start_two

SCRIPT = pathlib.Path(__file__).with_name("replica_runs.py")
METHODS = ("bitpruning", "least_squares_binary", "bsq", "apot", "bayesian_bits")
WEIGHTS = 2e-6
"""Largest difference of weights of magnitude 1 after 12 steps of Adam: sums in another order."""

ONE = [f"one-keras-{m}" for m in METHODS] + [f"one-tf_keras-{m}" for m in METHODS[:1]]
WORKERS = [name.replace("one-", "multi_worker-") for name in ONE]
MIRRORED = ["mirrored-keras-least_squares_binary", "mirrored-keras-bayesian_bits"]
MIRRORED += ["mirrored-tf_keras-bitpruning"]
TWO_DEVICES = "--xla_force_host_platform_device_count=2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where three processes, started together, wrote what they found."""
    folder = tmp_path_factory.mktemp("replicas")
    started = start_two(lambda i: [SCRIPT, folder, *WORKERS])
    started.append(Running([SCRIPT, folder, *ONE, *MIRRORED]))
    for process in started:
        process.finish()
    return folder


def difference(a, b, start):
    """Largest difference of the arrays whose names begin so."""
    names = [name for name in a.files if name.startswith(start)]
    assert names
    assert sorted(a.files) == sorted(b.files)
    return max(np.abs(np.float64(a[n]) - np.float64(b[n])).max(initial=0) for n in names)


def check_equal(a, b):
    assert difference(a, b, "weight") < WEIGHTS
    assert difference(a, b, "learned_bits") < WEIGHTS
    assert difference(a, b, "bits") == 0
    np.testing.assert_allclose(a["losses"], b["losses"], rtol=1e-5)
    np.testing.assert_allclose(a["test"], b["test"], rtol=1e-5)


@pytest.mark.parametrize("run", WORKERS)
def test_two_workers_equal_one(folder, run):
    one = np.load(folder / f"{run.replace('multi_worker', 'one')}-0.npz")
    for worker in range(2):
        check_equal(one, np.load(folder / f"{run}-{worker}.npz"))


@pytest.mark.parametrize("run", WORKERS)
def test_workers_agree_to_the_last_bit(folder, run):
    first, second = (np.load(folder / f"{run}-{worker}.npz") for worker in range(2))
    for name in first.files:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.mark.parametrize("run", MIRRORED)
def test_two_devices_equal_one(folder, run):
    one = np.load(folder / f"{run.replace('mirrored', 'one')}-0.npz")
    check_equal(one, np.load(folder / f"{run}-0.npz"))


def test_the_methods_learned_something(folder):
    """Equal results would say little if nothing moved."""
    found = {m: np.load(folder / f"one-keras-{m}-0.npz") for m in METHODS}
    assert (found["bitpruning"]["learned_bits"] % 1 > 0).all()
    assert found["bsq"]["bits"][:, 0].min() < 5
    assert found["bayesian_bits"]["bits"].min() < 32
    for method, result in found.items():
        assert result["losses"][1] < result["losses"][0], method


@pytest.mark.long
@needs_jax
def test_data_parallel_on_jax(tmp_path):
    """Keras' own distribution, with two host devices."""
    methods = ("bitpruning", "bayesian_bits")
    runs = [f"{how}-keras-{m}" for how in ("one", "mirrored") for m in methods]
    flags = f"{JAX['XLA_FLAGS']} {TWO_DEVICES}"
    Running([SCRIPT, tmp_path, *runs], **{**JAX, "XLA_FLAGS": flags}).finish()
    assert len(os.listdir(tmp_path)) == len(runs)
    for method in methods:
        one, two = (
            np.load(tmp_path / f"{how}-keras-{method}-0.npz") for how in ("one", "mirrored")
        )
        check_equal(one, two)
