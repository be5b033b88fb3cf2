"""The programs of the benchmarks in C, the pipe to another environment, and the command."""

import json
import pathlib
import subprocess
import sys

import pytest

from benchmarks import clock, larq_engine, rates
from benchmarks.rates import Rate

ROOT = pathlib.Path(__file__).parents[2]
needs_compiler = pytest.mark.skipif(not clock.compiler(), reason="needs a C compiler")


@needs_compiler
def test_the_clock_ticks(monkeypatch, tmp_path):
    monkeypatch.setattr(clock, "BUILT", tmp_path)
    tick = clock.ticks()
    assert tick() == clock.CYCLES  # the additions are done, not left out


@needs_compiler
def test_roofs_are_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(rates, "BUILT", tmp_path)
    found = rates.roofs(1)
    assert len({(roof.isa, roof.name) for roof in found}) == len(found)
    assert all(0 < roof.low <= roof.median <= roof.high < 10_000 for roof in found)
    rates.save(found, {}, tmp_path / "roofline.json")
    assert rates.load(tmp_path / "roofline.json") == found
    assert rates.load(tmp_path / "elsewhere.json") == []
    assert 0.2 < rates.two_processors(1) < 20


@needs_compiler
def test_the_programs_compile_without_warnings(tmp_path):
    kernels = ROOT / "tflite_export" / "kernels"
    for name in ("roofline.c", "clock.c", "kernel_rates.c"):
        command = [clock.compiler(), "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-c"]
        command.append(f"-I{kernels}")
        source = str(ROOT / "benchmarks" / name)
        subprocess.run([*command, source, "-o", str(tmp_path / "x.o")], check=True)


def test_a_rate_from_a_line():
    assert rates.read("avx2\txor + x\t1.5\t2\t3") == Rate("avx2", "xor + x", 1.5, 2.0, 3.0)


WORKER = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if request["file"].endswith("bad.tflite"):
        print(json.dumps({"error": "no such file"}), flush=True)
    elif request["file"].endswith("end.tflite"):
        sys.exit(4)
    else:
        print(json.dumps({"wall": 0.5 * request["calls"], "cpu": 0.25}), flush=True)
"""


def test_bursts_through_a_pipe(monkeypatch, tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setattr(larq_engine, "_PYTHON", pathlib.Path(sys.executable))
    monkeypatch.setattr(larq_engine, "_WORKER", tmp_path / "worker.py")
    with larq_engine.Worker() as worker:
        burst = worker.subject("x")
        found = burst(4)
        assert (found.calls, found.wall, found.cpu) == (4, 2.0, 0.25)
        with pytest.raises(RuntimeError, match="larq: no such file"):
            worker.subject("bad")(1)
        assert burst(1).wall == 0.5
        with pytest.raises(RuntimeError, match="expected an answer, got none"):
            worker.subject("end")(1)


def test_unknown_parts_are_refused():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only=layers,naps"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "naps" in done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("*.json")))
def test_results_that_are_committed_name_their_machine(path):
    machine = json.loads(path.read_text())["machine"]
    assert machine["processor"]
    assert machine["commit"]
