"""Tables between the marks of a file."""

import pathlib

import pytest

from benchmarks.written import fill, filled

ROOT = pathlib.Path(__file__).parents[2]
TEXT = """before
<!-- bench:a -->
old
table
<!-- /bench:a -->
between
<!-- bench:b-2 -->
<!-- /bench:b-2 -->
after
"""


def test_tables_take_the_place_of_old_ones():
    new = filled(TEXT, {"a": "| 1 |", "b-2": "| 2 |", "c": "| 3 |"})
    assert new == (
        "before\n<!-- bench:a -->\n| 1 |\n<!-- /bench:a -->\nbetween\n"
        "<!-- bench:b-2 -->\n| 2 |\n<!-- /bench:b-2 -->\nafter\n"
    )
    assert filled(new, {"a": "| 1 |", "b-2": "| 2 |"}) == new


def test_marks_without_a_table_keep_what_they_hold():
    assert filled(TEXT, {}) == TEXT
    assert "old\ntable" in filled(TEXT, {"b-2": "x"})


@pytest.mark.parametrize("mark", ["<!-- bench:a -->", "<!-- /bench:a -->"])
def test_a_mark_that_stands_alone_is_refused(tmp_path, mark):
    path = tmp_path / "x.md"
    path.write_text(TEXT.replace(mark, ""))
    with pytest.raises(ValueError, match=r"x\.md.*in pairs"):
        fill(path, {"a": "new"})
    assert "old" in path.read_text()


def test_a_file_is_written_only_if_it_changes(tmp_path):
    path = tmp_path / "x.md"
    path.write_text(TEXT)
    assert fill(path, {"a": "new"})
    assert not fill(path, {"a": "new"})


@pytest.mark.parametrize("name", ["README.md", "docs/benchmarks.md"])
def test_marks_of_our_files_are_in_pairs(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert filled(text, {}) == text
    assert "<!-- bench:layers-avx2" in text
