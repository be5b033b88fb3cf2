"""The benchmark of training, with processes that only say what they trained."""

import dataclasses
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks.training import __main__ as program
from benchmarks.training import results, subjects, tables, turns
from benchmarks.training.processes import Failed, Late, Process
from benchmarks.training.results import Float, Network, Report, Row
from tflite_export.timing.bursts import spread

ROOT = pathlib.Path(__file__).parents[2]
MACHINE = {"processor": "P", "cores": "2", "system": "S", "python": "3", "commit": "c0ffee"}

FAKE = """
import json, os, sys, time
kind, network, method, jit, batch = sys.argv[1:]
say = lambda **found: print("noise\\n@" + json.dumps(found), flush=True)
seconds = {"float": 0.1 if jit == "off" else 0.3, "apot": 0.2, "ls1": 0.4}.get(method, 0.15)
shares = iter([1.0, 1.0, 0.5] + [1.0] * 99 if method == "apot" else [0.5] * 99
              if method == "ls1" else [1.0] * 99)
say(versions={"keras": "3"})
for line in sys.stdin:
    what, *number = line.split()
    if what == "build":
        if method == "bsq":
            say(error="ValueError: too many bits")
        if method == "gf":
            os.kill(os.getpid(), 9)
        if method == "lst":
            time.sleep(60)
        say(start=4.0 if method == "float" else 6.0, before=100.0)
    elif what == "steps":
        say(cpu=seconds, share=next(shares))
    else:
        say(peak=200.0 if method == "float" else 250.0)
"""


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Subjects run `FAKE`; results lie in the folder that is returned."""
    worker = tmp_path / "fake.py"
    worker.write_text(FAKE)
    monkeypatch.setattr(subjects, "_WORKER", worker)
    monkeypatch.setattr(subjects, "BUILT", tmp_path)
    monkeypatch.setattr(program.machine, "pin", lambda: 1)
    monkeypatch.setattr(program.machine, "describe", lambda: MACHINE)
    return tmp_path


def measured(folder, *arguments):
    """The report of a run of the program that is limited to resnet20."""
    path = folder / "t.json"
    words = ["--networks=resnet20", "--quick", "--limit=5", f"--json={path}", *arguments]
    assert program.main(words) == 0
    return results.load(path)


def test_ratios_memory_and_start(fake, capsys):
    report = measured(fake, "--methods=uniform")
    base, row = report.networks["resnet20"].base, report.networks["resnet20"].rows["uniform"]
    assert base.jit == "off"
    assert {jit: found.median for jit, found in base.seconds.items()} == {"off": 0.1, "on": 0.3}
    assert row.ratio.median == pytest.approx(1.5)
    assert (row.ratio.count, row.ratio.discarded, row.busy) == (7, 0, False)
    assert (row.start, row.memory, row.own) == (1.5, 1.25, 1.5)
    assert row.machine == MACHINE
    assert "| uniform | 150 |" in capsys.readouterr().out


def test_disturbed_rounds_are_taken_again_or_marked(fake):
    rows = measured(fake, "--methods=apot,ls1").networks["resnet20"].rows
    # One of the first turns had half the processor; on a busy machine all have.
    assert (rows["apot"].ratio.count, rows["apot"].ratio.discarded) == (7, 1)
    assert not rows["apot"].busy
    assert rows["ls1"].busy
    assert (rows["ls1"].ratio.count, rows["ls1"].ratio.discarded) == (14, 0)


def test_rows_that_fail_say_why_and_others_go_on(fake, capsys):
    found = measured(fake, "--methods=bsq,gf,uniform")
    rows = found.networks["resnet20"].rows
    assert rows["bsq"].reason == "ValueError: too many bits"
    assert rows["gf"].reason == "its process ended with status -9"
    assert rows["uniform"].reason == ""
    assert "| bsq | ValueError: too many bits |" in capsys.readouterr().out
    assert math.isnan(rows["bsq"].ratio.median)


def test_a_row_that_takes_too_long_is_ended(fake):
    start = time.monotonic()
    row = measured(fake, "--methods=lst", "--limit=1").networks["resnet20"].rows["lst"]
    assert row.reason == "did not finish in 1 s"
    assert time.monotonic() - start < 30


def test_missing_projects_are_rows(fake, monkeypatch):
    monkeypatch.setattr(subjects, "PEERS", fake / "nowhere")
    rows = measured(fake, "--projects=larq").networks["resnet20"].rows
    assert rows["larq"].reason == "not installed (make bench-peers)"


def test_limited_runs_add_to_what_is_there(fake):
    first = measured(fake, "--methods=uniform,bsq")
    second = measured(fake, "--methods=bitpruning,bsq", "--jit=on")
    rows = second.networks["resnet20"].rows
    assert list(rows) == ["uniform", "bsq", "bitpruning"]
    assert rows["uniform"] == first.networks["resnet20"].rows["uniform"]
    assert rows["bitpruning"].jit == "on"
    with pytest.raises(ValueError, match=r"t\.json.*batch 64, got those on tensorflow.*128"):
        measured(fake, "--methods=uniform", "--batch=64")


def test_both_jits_are_tried(fake):
    row = measured(fake, "--methods=uniform", "--jit=both").networks["resnet20"].rows["uniform"]
    assert row.tried == pytest.approx({"off": 1.5, "on": 1.5})


def test_an_interruption_leaves_what_was_measured(fake, monkeypatch):
    done = program._try

    def interrupted(run, base, subject):
        if subject.method == "bitpruning":
            raise KeyboardInterrupt
        return done(run, base, subject)

    monkeypatch.setattr(program, "_try", interrupted)
    path = fake / "t.json"
    words = ["--networks=resnet20", "--methods=uniform,bitpruning", "--quick", f"--json={path}"]
    assert program.main(words) == 130
    assert list(results.load(path).networks["resnet20"].rows) == ["uniform"]
    assert [p.name for p in fake.glob("*.json*")] == ["t.json"]  # nothing half written beside it


PARENT = """
import pathlib, sys, time
from benchmarks.training.processes import Process
worker = ("import sys; sys.path.insert(0, sys.argv[1]); from benchmarks.training import worker;"
          "import os, time; worker.say(pid=os.getpid()); worker.listen();"
          "sum(time.sleep(0.1) or 0 for _ in range(600))")
p = Process([sys.executable, "-c", worker, sys.argv[1]], {}, pathlib.Path(sys.argv[2]))
print(p.answer(time.monotonic() + 30)["pid"], flush=True)
time.sleep(60)
"""


def test_a_worker_does_not_survive_its_parent(tmp_path):
    command = [sys.executable, "-c", PARENT, str(ROOT), str(tmp_path / "log")]
    parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    os.kill(worker, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        if not _runs(worker):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    raise AssertionError("the worker still runs")


def _runs(pid):
    try:
        os.kill(pid, 0)
        state = pathlib.Path(f"/proc/{pid}/stat")
        return not state.is_file() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").is_file(), reason="needs /proc")
def test_memory_of_the_parent_is_not_counted():
    code = (
        "from benchmarks.training import worker; a = worker.peak();"
        "b = bytearray(b'1') * (1 << 26); print(a, worker.peak() - a)"
    )
    mine = bytearray(b"1") * (1 << 28)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    before, taken = map(float, done.stdout.split())
    assert len(mine) == 1 << 28
    assert before < 100
    assert 60 < taken < 80


def test_a_process_that_was_late_is_asked_no_more(tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with Process(command, {}, tmp_path / "log") as process:
        with pytest.raises(Late):
            process.ask("build", time.monotonic() + 0.2)
        with pytest.raises(Failed, match="ended with status -9"):
            process.ask("build", time.monotonic() + 9)
    with pytest.raises(Failed, match="no such place"):
        Process([str(tmp_path / "no such place")], {}, tmp_path / "log")


class Steps:
    """In place of `Trained`: each turn takes so long."""

    def __init__(self, *seconds, share=1.0):
        self.seconds, self.share = list(seconds), share

    def turn(self, steps, deadline):
        return self.seconds.pop(0), self.share


def test_ratios_are_taken_within_a_round():
    # The clock halves after the first round: ratios stay, times do not.
    base, ours = Steps(1.0, 2.0, 2.0), Steps(1.5, 3.0, 3.0)
    found = turns.beside(base, ours, turns.Turns(3, 1, 9.0, 9.0), time.monotonic() + 9)
    ratio, seconds, of_float = found.spreads()
    assert (ratio.low, ratio.median, ratio.high) == (1.5, 1.5, 1.5)
    assert (seconds.median, of_float.median) == (3.0, 2.0)


def test_seconds_that_are_over_leave_the_least_rounds():
    base, ours = Steps(*[1.0] * 9), Steps(*[2.0] * 9)
    found = turns.beside(base, ours, turns.Turns(9, 1, 0.0, 9.0), time.monotonic() + 9)
    assert len(found.ours) == turns.LEAST
    past = time.monotonic() - 1
    found = turns.beside(Steps(*[1.0] * 9), Steps(*[2.0] * 9), turns.Turns(9, 1, 9.0, 9.0), past)
    assert len(found.ours) == turns.LEAST


def row(ratio, **changed):
    """A row of steps of 100 ms times the ratio, with everything else at its goal."""
    values = {
        "ratio": spread(np.array([ratio, ratio])),
        "seconds": spread(np.array([0.1 * ratio])),
        "base": spread(np.array([0.1])),
    }
    usual = {"jit": "off", "start": 2.0, "memory": 1.3, "own": 1.6, "machine": MACHINE}
    return Row(**{**values, **usual, "versions": {"keras": "3"}, **changed})


def report(rows, **changed):
    """A report of one network."""
    base = Float("off", {"off": spread(np.array([0.1]))}, 4.0, 1000.0, MACHINE, {})
    found = Report("tensorflow", 128, {"resnet20": Network(base, rows)}, MACHINE)
    return dataclasses.replace(found, **changed)


def test_tables_say_what_is_met_and_what_is_not():
    rows = {
        "ls2": row(2.4, memory=1.31, start=2.1),
        "uniform": row(1.15),
        "bsq": row(1.2, memory=1.5),
        "lst": Row("did not finish in 9 s"),
        "qkeras": row(1.1, machine=MACHINE),
    }
    lines = tables.short(report(rows)).splitlines()
    assert lines[2] == "| uniform | <= 1.15 | **1.15** (1.15 to 1.15) | **1.30** | **2.00** |"
    assert lines[3] == "| ls2 | <= 1.15 | 2.40 (2.40 to 2.40) | 1.31 | 2.10 |"
    assert lines[4] == "| lst | <= 1.15 | did not finish in 9 s |  |  |"
    assert lines[5] == "| bsq | <= 1.25 | **1.20** (1.20 to 1.20) | **1.50** | **2.00** |"
    assert lines[6] == "| qkeras |  | 1.10 (1.10 to 1.10) | 1.30 | 2.00 |"
    table = tables.full(report(rows))
    assert "step <= 1.15: NOT met; memory <= 1.3: NOT met; build and first step <= 2: NOT" in table
    assert "step <= 1.25: met; memory <= 1.5: met; build and first step <= 2: met" in table
    assert "qkeras: 4-bit weights, 8-bit inputs (keras 3)" in table


def test_rows_of_other_commits_are_named():
    same = tables.full(report({"uniform": row(1.0), "apot": row(1.0)}))
    assert same.endswith("Measured on P, 2 cores, S, python 3, commit c0ffee, keras 3.")
    other = row(1.0, machine=MACHINE | {"commit": "beef"})
    text = tables.full(report({"uniform": row(1.0), "apot": other}))
    assert "commit c0ffee, keras 3: uniform (ResNet-20)." in text
    assert "commit beef, keras 3: apot (ResNet-20)." in text


def test_json_reads_as_it_was_written(tmp_path):
    written = report({"uniform": row(1.25, tried={"off": 1.25, "on": "late"}), "lst": Row("late")})
    written.save(tmp_path / "x.json")
    assert "NaN" not in (tmp_path / "x.json").read_text()
    read = results.load(tmp_path / "x.json")
    assert read.networks["resnet20"].rows["uniform"] == written.networks["resnet20"].rows["uniform"]
    assert read.networks["resnet20"].base == written.networks["resnet20"].base
    assert tables.full(read) == tables.full(written)


@pytest.mark.parametrize("text", ["", "{}", '{"networks": []}', "[1]"])
def test_files_of_another_form_are_named(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x\.json.*expected results of training"):
        results.load(tmp_path / "x.json")


@pytest.mark.parametrize(
    "words", [["--methods=naps"], ["--networks=lenet9"], ["--rounds=0"], ["--limit=-1"]]
)
def test_options_that_make_no_sense_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        program.options(words)
    assert "expected --" in capsys.readouterr().err


def test_naming_methods_leaves_projects_out():
    assert program.options(["--methods=uniform"]).projects == []
    assert program.options(["--projects=tfmot"]).methods == []
    everything = program.options([])
    assert tuple(everything.methods) == subjects.METHODS
    assert tuple(everything.projects) == tuple(subjects.PROJECTS)
    assert program.options(["--backend=jax"]).projects == ["hgq2"]


def test_a_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks.training import picture

    picture.draw(
        report({"uniform": row(1.2), "ls2": row(9.0), "lst": Row("late")}), tmp_path / "p.png"
    )
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_the_worker_trains_what_it_is_asked(tmp_path):
    """A real one, of a small network, through its whole protocol."""
    subject = subjects.Subject("kerasbits", "resnet8", "float", "off", "tensorflow", 2)
    with subject.start() as process:
        deadline = time.monotonic() + 300
        assert "keras" in process.answer(deadline)["versions"]
        assert process.ask("build", deadline)["start"] > 0
        assert process.ask("steps 2", deadline)["cpu"] > 0
        assert process.ask("peak", deadline)["peak"] > 50


def test_the_worker_says_what_went_wrong(tmp_path):
    command = [sys.executable, str(subjects._WORKER), "kerasbits", "resnet8", "float", "off", "2"]
    with (
        Process(command, {"KERAS_BACKEND": ""}, tmp_path / "log") as process,
        pytest.raises(Failed, match="ValueError: expected a backend, got ''"),
    ):
        process.answer(time.monotonic() + 300)
    assert "Traceback" in (tmp_path / "log").read_text()
