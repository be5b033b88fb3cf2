"""Make the environments of other projects: `make bench-peers`, or `python -m benchmarks.peers`.

Each has a Python and packages of its own under .peers, because they ask for older ones.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

from benchmarks import larq_engine
from benchmarks.folders import PEERS

NEWER = ("3.12", "3.11", "3.10")
ENVIRONMENTS = {
    "larq": (("3.11", "3.10", "3.9"), larq_engine.REQUIREMENTS),
    "hgq2": (NEWER, ("HGQ2==0.2.0", "tensorflow", "jax")),
    "qkeras": (NEWER, ("QKeras==0.9.0", "pyparsing", "tensorflow", "tf_keras")),
}
"""Versions of Python that the packages have wheels for, best first, and the packages."""


def main() -> int:
    """Make what is missing; the number of environments that could not be made."""
    failed = 0
    for name, (versions, requirements) in ENVIRONMENTS.items():
        folder = PEERS / name
        done = folder / "requirements.txt"
        if done.is_file() and done.read_text() == "\n".join(requirements):
            print(f"{name}: there already")
            continue
        python = next((p for v in versions if (p := _python(v))), None)
        if python is None:
            print(f"{name}: expected Python {' or '.join(versions)}, found none", file=sys.stderr)
            failed += 1
            continue
        print(f"{name}: installing {' '.join(requirements)}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        if subprocess.run([*pip, *requirements], check=False).returncode:
            print(f"{name}: pip could not install it", file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
            failed += 1
            continue
        done.write_text("\n".join(requirements))
    return failed


def _python(version: str) -> str | None:
    """A Python of this version that runs."""
    found = shutil.which(f"python{version}")
    works = (
        found
        and not subprocess.run(
            [found, "-c", "import venv"], capture_output=True, check=False
        ).returncode
    )
    return found if works else None


if __name__ == "__main__":
    sys.exit(main())
