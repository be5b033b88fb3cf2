"""Does a training that is killed end as one that is not? A table of checksums, a row a method.

For each method one run of `examples/train.py` is left alone. Another is killed twice by SIGKILL,
behind random steps, and started again by the same command. Compared are all variables of the final
models and the bytes of the exported files. Exits with status 1 if any differ.

Example:
    python benchmarks/kill_and_resume.py --steps=100 --batch_size=8
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
METHODS = ("bitpruning", "least_squares_binary", "bsq", "apot", "bayesian_bits")
SHOWN = 16
"""Digits of a checksum that are printed."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """What a run ended with.

    Args:
        weights, file: SHA-256 of all variables and of the exported file.
        kills: step of the newest checkpoint at each kill.
        seconds: from the first start to the end.
    """

    weights: str
    file: str
    kills: tuple[int, ...]
    seconds: float


def arguments() -> argparse.Namespace:
    """The options of this program; what it does not know goes to the training program."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--program", default="train", choices=("train", "train_tfmot"))
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--steps", type=int, default=100, help="of each of the three phases")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/kill_and_resume"))
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    known, rest = parser.parse_known_args()
    return argparse.Namespace(**vars(known), rest=rest)


def command(options: argparse.Namespace, method: str, folder: pathlib.Path) -> list[str]:
    """The training program with its flags."""
    return [
        sys.executable,
        str(ROOT / "examples" / f"{options.program}.py"),
        "--mode=train",
        f"--method={method}",
        f"--network={options.network}",
        f"--dataset={options.dataset}",
        f"--train_steps={options.steps}",
        f"--batch_size={options.batch_size}",
        "--validation=0.02",
        "--checkpoint_steps=10",
        f"--model_dir={folder}",
        f"--export={folder / 'model.tflite'}",
        *options.rest,
    ]


def start(arguments: list[str]) -> subprocess.Popen:
    """Start the training program."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    pipe = subprocess.PIPE
    return subprocess.Popen(arguments, env=environment, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen, folder: pathlib.Path) -> tuple[str, str]:
    """Checksums of the weights and the file of a run that goes on to its end."""
    output, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{folder}: status {process.returncode}\n{errors[-3000:]}")
    result = json.loads(output.splitlines()[-1])
    file = (folder / "model.tflite").read_bytes()
    return result["weights_sha256"], hashlib.sha256(file).hexdigest()


def unbroken(options: argparse.Namespace, method: str) -> Ended:
    """A run that is left alone."""
    folder = fresh(options.folder / f"{method}_unbroken")
    begin = time.monotonic()
    weights, file = finish(start(command(options, method, folder)), folder)
    return Ended(weights, file, (), time.monotonic() - begin)


def killed(options: argparse.Namespace, method: str) -> Ended:
    """A run that is killed in its first half and again in its second one."""
    folder = fresh(options.folder / f"{method}_killed")
    chance = random.Random(f"{options.seed} {method}")
    begin, kills, half = time.monotonic(), [], 3 * options.steps // 2
    for first in (0, half):
        process = start(command(options, method, folder))
        wait_for(chance.randrange(first, first + half), process, folder)
        time.sleep(chance.random())
        if process.poll() is not None:
            raise SystemExit(f"{folder}: ended before it was killed (status {process.returncode})")
        process.kill()
        process.communicate()
        kills.append(newest_step(folder))
    weights, file = finish(start(command(options, method, folder)), folder)
    return Ended(weights, file, tuple(kills), time.monotonic() - begin)


def wait_for(step: int, process: subprocess.Popen, folder: pathlib.Path) -> None:
    """Wait until a checkpoint of this step, or a later one, is there, or the process has ended."""
    while newest_step(folder) < step and process.poll() is None:
        time.sleep(0.02)


def fresh(folder: pathlib.Path) -> pathlib.Path:
    """The folder, without what an earlier run left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def newest_step(folder: pathlib.Path) -> int:
    """Step of the newest checkpoint, 0 if there is none."""
    names = [path.stem for path in (folder / "checkpoints").glob("checkpoint-*.npz")]
    return max((int(name.partition("-")[2]) for name in names), default=0)


def main() -> None:
    """Print the table."""
    options = arguments()
    print("| method | run | killed after step | weights | file | s |", flush=True)
    print("|---|---|---|---|---|---|", flush=True)
    equal = True
    for method in options.methods:
        whole = unbroken(options, method)
        broken = killed(options, method)
        for name, ended in (("unbroken", whole), ("killed", broken)):
            steps = ", ".join(map(str, ended.kills)) or "-"
            sums = f"{ended.weights[:SHOWN]} | {ended.file[:SHOWN]}"
            print(f"| {method} | {name} | {steps} | {sums} | {ended.seconds:.0f} |", flush=True)
        equal &= (whole.weights, whole.file) == (broken.weights, broken.file)
    print("all equal" if equal else "NOT EQUAL", flush=True)
    sys.exit(not equal)


if __name__ == "__main__":
    main()
