"""What is trained: methods of kerasbits and models of other projects, each in its environment."""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib
import sys

from benchmarks.folders import BUILT, PEERS
from benchmarks.training.processes import Failed, Process

NETWORKS = ("resnet20", "mobilenet_v2_small")
METHODS = ("uniform", "bitpruning", "apot", "ls1", "gf", "ls2", "lst", "bsq", "bayesian_bits")
PROJECTS = {
    "tfmot": "8-bit weights and inputs",
    "larq": "1-bit weights and inputs",
    "qkeras": "4-bit weights, 8-bit inputs",
    "hgq2": "learned bits for each weight and for inputs",
}
"""Other projects, and what they train."""

PROJECTS_OF = {"tensorflow": tuple(PROJECTS), "jax": ("hgq2",)}
"""Those that run on a backend."""

STEP_GOALS = dict.fromkeys(METHODS, 1.15) | {"bsq": 1.25, "bayesian_bits": 1.25}
MEMORY_GOALS = dict.fromkeys(METHODS, 1.3) | {"bsq": 1.5}
START_GOAL = 2.0
"""The most that a step, memory, and building with the first step may be, times float."""

_WORKER = pathlib.Path(__file__).with_name("worker.py")


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network, trained in one way.

    Args:
        kind: "kerasbits", or a project.
        network: name of it, of `examples/networks.py`.
        method: of kerasbits; for a project "its", and "float" for both.
        jit: "on" or "off", whether the whole step is compiled.
        backend: of Keras.
        batch: samples of a step.
    """

    kind: str
    network: str
    method: str
    jit: str
    backend: str
    batch: int

    def start(self) -> Process:
        """Its process.

        Raises:
            Failed: the project is not installed.
        """
        python = _python(self.kind)
        words = (self.kind, self.network, self.method, self.jit, str(self.batch))
        environment = {
            "KERAS_BACKEND": self.backend,
            "JAX_PLATFORMS": "cpu",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
            # tf_keras behind TensorFlow's name: these projects are made for it.
            "TF_USE_LEGACY_KERAS": str(int(self.kind in ("tfmot", "qkeras"))),
        }
        log = BUILT / f"training-{self.backend}-{'-'.join(words)}.log"
        return Process([python, "-s", str(_WORKER), *words], environment, log)


def _python(kind: str) -> str:
    if kind == "tfmot" and importlib.util.find_spec("tensorflow_model_optimization") is None:
        raise Failed("not installed (pip install '.[tfmot]')")
    if kind in ("kerasbits", "tfmot"):
        return sys.executable
    python = PEERS / kind / "bin" / "python"
    if not python.is_file():
        raise Failed("not installed (make bench-peers)")
    return str(python)
