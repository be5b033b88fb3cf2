"""The tables of docs/runtimes.md: which runtime runs which stored weights."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from runtimes.environments import RUNTIMES, run_jobs
from runtimes.stock_files import FORMS, OPERATORS, Case, cases, stock_file

TENSORFLOW = "2.21"
TABLES = pathlib.Path(__file__).parents[2] / "docs" / "runtimes.md"


def tables():
    """The rows of each table, by the first word in its heading's backquotes."""
    rows, form = {}, None
    for line in TABLES.read_text().splitlines():
        if line.startswith("#"):
            form = line.split("`")[1] if "`" in line else None
        elif form and line.startswith("| "):
            rows.setdefault(form, []).append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def documented():
    """Cells of the tables by (form, operator, container, runtime)."""
    cells = {}
    for form in FORMS:
        head, *rows = tables()[form]
        for operator, container, *row in rows:
            for runtime, cell in zip(head[2:], row, strict=True):
                cells[form, operator, container, runtime] = cell
    return cells


def outcome(file, message, output):
    """ "yes", "no" (refused) or "WRONG" (an output that is not right, or a crash)."""
    if message:
        return "WRONG" if message.startswith("crashed") else "no"
    y = np.load(output)
    fits = y.shape == file.y.shape and y.dtype == file.y.dtype
    difference = np.abs(y.astype(np.float64) - file.y) if fits else np.array(np.inf)
    return "yes" if (difference <= file.tolerance).all() else "WRONG"


def worst(outcomes):
    return next(word for word in ("WRONG", "no", "yes") if word in outcomes)


def measured(runtime, folder):
    """Cells of one runtime, as the tables have them."""
    files, jobs, of_job = {}, [], []
    for case in cases():
        files[case] = file = stock_file(case)
        path, x = folder / f"{case.name}.tflite", folder / f"{case.name}.x.npy"
        path.write_bytes(file.data)
        np.save(x, file.x)
        for plain in (False, True):
            y = folder / f"{case.name}.{plain}.npy"
            job = {"file": str(path), "inputs": [str(x)], "outputs": [str(y)]}
            jobs.append(job | {"delegate": None, "plain": plain})
            of_job.append(case)
    results = {}
    for case, job, message in zip(of_job, jobs, run_jobs(runtime, jobs, folder), strict=True):
        found = outcome(files[case], message, job["outputs"][0])
        results[case] = worst({found, results.get(case, "yes")})
    cells = {}
    for case in results:
        key = case.form, case.operator, case.container, runtime.name
        cells.setdefault(key, []).append(results[case])
    return {key: cell_of(*pair) for key, pair in cells.items()}


def cell_of(tensor, channel):
    """Outcomes of scales per tensor and per channel: one word if they are equal."""
    return tensor if tensor == channel else f"{tensor} / {channel}"


def test_the_tables_are_complete():
    names = {runtime.name for runtime in RUNTIMES}
    wanted = {(c.form, c.operator, c.container, name) for c in cases() for name in names}
    assert set(documented()) == wanted


@pytest.fixture
def measured_runtime(runtime):
    """A runtime of the version that was measured for the tables."""
    if runtime.name == "tf.lite" and not tf.__version__.startswith(f"{TENSORFLOW}."):
        pytest.skip(f"the tables are about TensorFlow {TENSORFLOW}, here is {tf.__version__}")
    return runtime


def test_runtimes_do_as_documented(measured_runtime, tmp_path):
    table = documented()
    cells = measured(measured_runtime, tmp_path)
    assert cells == {key: table[key] for key in cells}


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_files_use_the_whole_range_of_their_type(case):
    """A type read as another one, or nibbles in another order, cannot give the right output."""
    file = stock_file(case)
    assert len(np.unique(file.y)) >= 4
    assert np.abs(file.y).max() > 10 * file.tolerance


def test_highest_versions_are_as_documented(measured_runtime, tmp_path):
    """A file with the highest version of an operator runs, one with the next is refused."""
    head, *rows = tables()["version"]
    row = next(row for row in rows if row[0] == measured_runtime.name)
    assert set(head[1:]) == {*OPERATORS, "DEQUANTIZE"}
    jobs = []
    for operator, version in zip(head[1:], map(int, row[1:]), strict=True):
        carrier = "CONV_2D" if operator == "DEQUANTIZE" else operator
        case = Case(carrier, "INT8", "dequantize", per_channel=True)
        for number in (version, version + 1):
            file = stock_file(case, {operator: number})
            path, x = tmp_path / f"{operator}.{number}.tflite", tmp_path / f"{operator}.npy"
            path.write_bytes(file.data)
            np.save(x, file.x)
            job = {"file": str(path), "inputs": [str(x)], "outputs": [str(tmp_path / "y.npy")]}
            jobs.append(job | {"delegate": None, "plain": True})
    messages = run_jobs(measured_runtime, jobs, tmp_path)
    assert not any(messages[::2]), messages
    assert all("builtin opcode" in message for message in messages[1::2]), messages
