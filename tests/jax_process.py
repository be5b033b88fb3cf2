"""Processes whose Keras runs on JAX."""

import importlib.util
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
ENVIRONMENT = {
    "KERAS_BACKEND": "jax",
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": str(ROOT),
    # Compiling fast code takes longer here than running slow code.
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
}
needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed"
)
