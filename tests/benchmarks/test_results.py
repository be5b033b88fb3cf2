"""What the benchmarks make of times: ratios, goals, MAC per cycle, JSON and tables."""

import math

import numpy as np
import pytest

from benchmarks import clock, results, tables
from benchmarks.cases import FLOAT, INT8, LARQ, SHAPES, Shape
from benchmarks.results import Report, group, load

GIGAHERTZ = 2e9


def times():
    """Four rounds at 2 GHz; ours is 6 times as fast as int8, and lost a round."""
    return {
        clock.NAME: np.full(4, clock.CYCLES / GIGAHERTZ),
        INT8: np.array([6e-3, 6.6e-3, 6e-3, 6e-3]),
        FLOAT: np.array([9e-3, 9e-3, 9e-3, 9e-3]),
        "1 x 1": np.array([1e-3, 1.1e-3, np.nan, 1e-3]),
        "8 x 8": np.array([8e-3, 8e-3, 8e-3, 8e-3]),
    }


def made(found=None, title="conv 3x3, 64 channels, 56x56"):
    goals = {"1 x 1": {INT8: 6.0, LARQ: 4.0}, "8 x 8": {INT8: 1.0}}
    references = dict.fromkeys((INT8, FLOAT, LARQ), 10**8)
    return group(title, times() if found is None else found, references, goals, 10**8)


def report(*groups, note=""):
    machine = {"processor": "P", "cores": "2", "system": "S", "compiler": "cc", "commit": "c0ffee"}
    return Report("layers-avx2", "avx2", note, machine, groups)


def rows(of_group):
    return {row.name: row for row in of_group.rows}


def test_references_come_first_and_the_missing_one_is_left_out():
    found = made()
    assert [row.name for row in found.rows] == [INT8, FLOAT, "1 x 1", "8 x 8"]
    assert found.references == (INT8, FLOAT)


def test_ratios_goals_and_cycles():
    ours, plain = rows(made())["1 x 1"], rows(made())["8 x 8"]
    assert ours.ratios[INT8].median == pytest.approx(6.0)
    assert ours.ratios[INT8].count == 3
    assert ours.met(INT8) is True
    assert ours.met(LARQ) is None  # not measured
    assert ours.met(FLOAT) is None  # no goal
    assert plain.met(INT8) is False
    # 1e8 MAC in 1 ms at 2 GHz
    assert ours.macs_per_cycle == pytest.approx(1e8 / (1e-3 * GIGAHERTZ))


def test_a_disturbed_clock_does_not_flatter():
    disturbed = times()
    disturbed[clock.NAME] = disturbed[clock.NAME] * np.array([1.0, 1.3, 1.5, 1.2])
    ours = rows(made(disturbed))["1 x 1"]
    assert ours.macs_per_cycle == pytest.approx(50, rel=0.1)
    del disturbed[clock.NAME]
    assert rows(made(disturbed))["1 x 1"].macs_per_cycle is None
    assert math.isnan(results.cycle_seconds(np.array([np.nan])))


def test_json_reads_as_it_was_written(tmp_path):
    written = report(made(), note="Larq is not here.")
    path = written.save(tmp_path)
    assert path == tmp_path / "layers-avx2.json"
    read = load(path)
    assert read.groups[0].title == written.groups[0].title
    assert (read.isa, read.note, dict(read.machine)) == ("avx2", written.note, written.machine)
    for ours, theirs in zip(read.groups[0].rows, written.groups[0].rows, strict=True):
        assert ours.name == theirs.name
        assert dict(ours.goals) == dict(theirs.goals)
        assert ours.seconds.median == pytest.approx(theirs.seconds.median, rel=1e-5)
        assert ours.met(INT8) == theirs.met(INT8)


def test_what_did_not_count_is_no_number_in_json(tmp_path):
    lost = times() | {"1 x 1": np.full(4, np.nan)}
    path = report(made(lost)).save(tmp_path)
    assert "NaN" not in path.read_text()
    row = rows(load(path).groups[0])["1 x 1"]
    assert math.isnan(row.seconds.median)
    assert row.met(INT8) is None
    assert "| - |" in tables.full(load(path))


@pytest.mark.parametrize("text", ["", "{}", '{"groups": [{}]}', "[1]"])
def test_files_of_another_form_are_named(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"x\.json.*expected results of a benchmark"):
        load(path)


def cells(table, start):
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_summary_says_what_is_met_and_what_is_not():
    slower = times() | {"1 x 1": np.full(4, 3e-3), LARQ: np.full(4, 2e-2)}
    both = report(made(), made(slower, "conv 3x3, 128 channels, 28x28"), note="A note.")
    table = tables.summary(both)
    assert cells(table, "conv 3x3") == ["conv 3x3", "goal", "64@56x56", "128@28x28"]
    assert cells(table, "1 x 1") == ["1 x 1", ">= 6", "**6.00**", "2.00 (not met)"]
    assert cells(table, f"1 x 1, over {LARQ}") == [f"1 x 1, over {LARQ}", ">= 4", "", "**6.67**"]
    assert cells(table, "8 x 8")[2] == "0.75 (not met)"
    assert cells(table, INT8) == [INT8, "", "1", "1"]
    assert table.endswith("A note.")


def test_full_table_has_the_verdict_of_each_goal():
    table = tables.full(report(made()))
    assert "#### conv 3x3, 64 channels, 56x56" in table
    line = cells(table, "1 x 1")
    assert line[1:3] == ["1,000", "1,000 to 1,050"]
    assert line[-1] == f">= 6 x {INT8}: met; >= 4 x {LARQ}: not measured"
    assert f">= 1 x {INT8}: NOT met" in cells(table, "8 x 8")[-1]


@pytest.mark.parametrize(
    ("shape", "macs", "title"),
    [
        (Shape("conv", 64, 56), 56 * 56 * 64 * 64 * 9, "conv 3x3, 64 channels, 56x56"),
        (Shape("dense", 10), 100, "dense 10x10, batch 1"),
        (Shape("depthwise", 6, 5, 2), 9 * 9 * 6, "depthwise 3x3, 6 channels, 5x5, stride 2"),
    ],
)
def test_multiplications_of_a_shape(shape, macs, title):
    assert (shape.macs, shape.title) == (macs, title)


def test_names_of_files_differ():
    assert len({shape.key for shape in SHAPES}) == len(SHAPES)
