"""TFLite runtimes of several years, each in an environment of its own without TensorFlow.

They live under `.runtimes` in the root of the repository, and are made the first time only.
"""

import dataclasses
import fcntl
import json
import pathlib
import shutil
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).parents[2] / ".runtimes"
RUNNER = pathlib.Path(__file__).with_name("run_files.py")


@dataclasses.dataclass(frozen=True)
class Runtime:
    """A runtime: its name in docs/runtimes.md, the module to import, what pip must install."""

    name: str
    module: str
    requirements: tuple[str, ...] = ()


def _litert(version, numpy):
    name = f"ai-edge-litert {version}"
    return Runtime(name, "ai_edge_litert.interpreter", (f"ai-edge-litert=={version}", numpy))


RUNTIMES = (
    # Those of 2023 and 2024 are built for NumPy 1 and crash on import with NumPy 2.
    Runtime(
        "tflite-runtime 2.14.0",
        "tflite_runtime.interpreter",
        ("tflite-runtime==2.14.0", "numpy<2"),
    ),
    _litert("1.0.1", "numpy<2"),
    _litert("1.4.0", "numpy>=2"),
    _litert("2.3.0", "numpy>=2"),
    Runtime("tf.lite", "tensorflow.lite.python.interpreter"),
)
"""From the oldest that is supported to the newest. Without requirements: that of the tests."""


class NotInstallable(Exception):
    """What pip said."""


def python_of(runtime: Runtime) -> str:
    """The Python that has the runtime; installs it if need be."""
    if not runtime.requirements:
        return sys.executable
    folder = ROOT / runtime.name.replace(" ", "-")
    python, done = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join((sys.version, *runtime.requirements))
    ROOT.mkdir(exist_ok=True)
    with open(ROOT / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.is_file() and done.read_text() == wanted:
            return str(python)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=False)
        install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
        pip = subprocess.run(
            [*install, "--only-binary", ":all:", *runtime.requirements],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if pip.returncode:
            raise NotInstallable(pip.stderr.strip()[-500:])
        done.write_text(wanted)
    return str(python)


def run_jobs(runtime: Runtime, jobs: list[dict], folder: pathlib.Path) -> list[str]:
    """Messages of the jobs (see run_files.py), "" where all went well."""
    listed = folder / "jobs.json"
    listed.write_text(json.dumps(jobs))
    done = subprocess.run(
        [python_of(runtime), "-s", str(RUNNER), runtime.module, str(listed)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
