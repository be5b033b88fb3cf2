"""Files appear whole or not at all, and errors name the file that was asked for."""

import shutil

import pytest

from tflite_export.unfinished import unfinished


def written(path, data=b"new"):
    with unfinished(path) as temporary:
        temporary.write(data)
        temporary.finish()


@pytest.mark.parametrize("name", ["m.tflite", "ä b 日本.kbits", "a" * 248 + ".tflite", "é" * 124])
def test_a_file_replaces_an_older_one(tmp_path, name):
    written(tmp_path / name, b"old")
    written(tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_nothing_is_left_of_a_failure(tmp_path):
    written(tmp_path / "m.tflite", b"old")
    with pytest.raises(TypeError):
        written(tmp_path / "m.tflite", "no bytes")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("m.tflite", b"old")]


def test_a_folder_in_its_place(tmp_path):
    (tmp_path / "m.tflite").mkdir()
    with pytest.raises(IsADirectoryError) as caught, unfinished(tmp_path / "m.tflite"):
        pytest.fail("it begins")
    assert caught.value.filename == str(tmp_path / "m.tflite")


def test_a_folder_that_is_missing_or_goes_away(tmp_path):
    path = tmp_path / "folder" / "m.tflite"
    with pytest.raises(FileNotFoundError, match="folder"), unfinished(path):
        pytest.fail("it begins")
    path.parent.mkdir()
    with unfinished(path) as temporary:
        shutil.rmtree(path.parent)
        with pytest.raises(FileNotFoundError) as caught:
            temporary.write(b"new")
    assert caught.value.filename == str(path)
