"""Checkpoints: strict, and whole whenever the process stops."""

import pathlib

import keras
import numpy as np
import pytest
from example_modules import example

checkpoint = example("training.checkpoint")


def arrays(value):
    return {
        "model/m/a/kernel": np.full((2, 3), value, np.float32),
        "optimizer/step": np.int64(value),
    }


def saved(folder, step, keep=2):
    return checkpoint.save(folder, checkpoint.Checkpoint(step, {"phase": "learn"}, arrays(step)),
                           keep)  # fmt: skip


def newest(folder):
    warnings = []
    found = checkpoint.load_newest(folder, warnings.append)
    return (None if found is None else found[1].step), warnings


def test_what_is_loaded_is_what_was_saved(tmp_path):
    path = saved(tmp_path, 7)
    found = checkpoint.load(path)
    assert (found.step, found.place) == (7, {"phase": "learn"})
    assert set(found.arrays) == set(arrays(7))
    for name, array in arrays(7).items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype


def test_an_empty_folder_has_none(tmp_path):
    assert newest(tmp_path) == (None, [])
    assert newest(tmp_path / "missing") == (None, [])


def test_the_newest_are_kept(tmp_path):
    for step in (5, 9, 10, 200):
        saved(tmp_path, step, keep=3)
    assert [checkpoint.load(p).step for p in checkpoint.files(tmp_path)] == [200, 10, 9]
    assert newest(tmp_path) == (200, [])


@pytest.mark.parametrize("kind", ["cut", "empty", "bit", "zeros", "text", "other zip"])
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path, kind):
    saved(tmp_path, 1)
    path = saved(tmp_path, 2)
    data = bytearray(path.read_bytes())
    if kind == "bit":
        data[data.index(b"\x93NUMPY", 400) + 140] ^= 1
    elif kind == "other zip":
        np.savez(path, a=np.zeros(3))
        data = path.read_bytes()
    made = {"cut": data[: len(data) // 2], "empty": b"", "zeros": bytes(len(data)), "text": b"hi"}
    path.write_bytes(made.get(kind, data))
    step, warnings = newest(tmp_path)
    assert step == 1
    assert len(warnings) == 1
    assert path.name in warnings[0]
    assert "damaged" in warnings[0]


def test_each_flipped_byte_is_noticed_or_harmless(tmp_path):
    path = saved(tmp_path, 3)
    data = path.read_bytes()
    noticed = 0
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        try:
            found = checkpoint.load(path)
        except checkpoint.DamagedError:
            noticed += 1
            continue
        # Bytes that zip does not use, such as dates.
        assert (found.step, found.place) == (3, {"phase": "learn"})
        assert checkpoint.digest(found.arrays) == checkpoint.digest(arrays(3))
    assert noticed > 0.6 * len(data) / 7


def test_values_that_were_exchanged_are_noticed(tmp_path):
    """The checksum is over names too, and over the place."""
    path = saved(tmp_path, 3)
    with np.load(path) as file:
        content = {name: file[name] for name in file.files}
    renamed = {("model/b" if n == "model/m/a/kernel" else n): a for n, a in content.items()}
    np.savez(path, **renamed)
    with pytest.raises(checkpoint.DamagedError, match="checksum"):
        checkpoint.load(path)
    moved = str(content["meta"]).replace('"step": 3', '"step": 4')
    np.savez(path, **{**content, "meta": np.array(moved)})
    with pytest.raises(checkpoint.DamagedError, match="checksum"):
        checkpoint.load(path)


def test_all_damaged_is_an_error(tmp_path):
    for step in (1, 2):
        saved(tmp_path, step).write_bytes(b"")
    with pytest.raises(ValueError, match="damaged ones only"):
        newest(tmp_path)


def test_a_damaged_newer_one_does_not_outlive_what_is_saved_next(tmp_path):
    saved(tmp_path, 1, keep=3)
    saved(tmp_path, 9, keep=3).write_bytes(b"")
    saved(tmp_path, 5, keep=3)
    assert [p.name for p in checkpoint.files(tmp_path)] == [
        "checkpoint-0000000005.npz", "checkpoint-0000000001.npz"
    ]  # fmt: skip


class Stop(BaseException):
    """In place of the signal that ends a process."""


def stop(*_, **__):
    raise Stop


@pytest.mark.parametrize("moment", ["open", "write", "fsync", "replace", "after", "unlink"])
@pytest.mark.parametrize("size", [0, 10])
def test_stopped_while_writing(tmp_path, monkeypatch, moment, size):
    """Whatever was reached, the folder has a whole checkpoint, and the next one can be written."""
    saved(tmp_path, 1)
    saved(tmp_path, 2)
    with monkeypatch.context() as patch:
        if moment == "open":
            patch.setattr(pathlib.Path, "open", stop)
        elif moment == "write":
            patch.setattr(checkpoint.os, "fsync", lambda *_: part(tmp_path, size))
        elif moment == "fsync":
            patch.setattr(checkpoint.os, "fsync", stop)
        elif moment == "replace":
            patch.setattr(checkpoint.os, "replace", stop)
        elif moment == "after":
            patch.setattr(checkpoint, "_sync_folder", stop)
        else:
            patch.setattr(pathlib.Path, "unlink", stop)
        with pytest.raises(Stop):
            saved(tmp_path, 3)
    assert newest(tmp_path) == (3 if moment in ("after", "unlink") else 2, [])
    saved(tmp_path, 3)
    assert newest(tmp_path) == (3, [])
    assert len(checkpoint.files(tmp_path)) == 2
    assert not [p for p in tmp_path.iterdir() if "unfinished" in p.name]


def part(folder, size):
    """As if the process had ended in the middle of `write`."""
    with (folder / checkpoint.UNFINISHED).open("r+b") as file:
        file.truncate(size)
    raise Stop


def test_errors_of_the_system_name_the_file(tmp_path):
    with pytest.raises(OSError, match="checkpoint-0000000001"):
        saved(tmp_path / "missing", 1)


def model(width=3, extra=False):
    layers = [keras.layers.Dense(width, name="a"), keras.layers.Dense(2, name="b")]
    layers += [keras.layers.Dropout(0.5, name="c")] * extra
    return keras.Sequential([keras.Input((4,)), *layers], name="m")


def test_values_go_from_variables_to_equal_ones():
    one, other = model(extra=True), model(extra=True)
    values = checkpoint.values_of(one.variables, "model")
    assert {"model/m/a/kernel", "model/m/b/bias"} <= set(values)
    assert any("seed" in name for name in values)  # of the random numbers
    checkpoint.restore(other.variables, "model", values, "here")
    for v, w in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(v.numpy(), w.numpy())


def test_equal_paths_are_told_apart():
    one, other = keras.Variable([1.0], name="v"), keras.Variable([2.0], name="v")
    values = checkpoint.values_of([one, other], "model")
    assert {n: float(a[0]) for n, a in values.items()} == {"model/v": 1.0, "model/v#2": 2.0}
    checkpoint.restore([other, one], "model", values, "here")
    assert (float(one.numpy()[0]), float(other.numpy()[0])) == (2.0, 1.0)


def test_values_are_copies():
    variable = keras.Variable([1.0, 2.0], name="v")
    values = checkpoint.values_of([variable], "model")
    variable.assign([5.0, 5.0])
    np.testing.assert_array_equal(values["model/v"], [1.0, 2.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("model/m/b/bias"), "expected the variable 'model/m/b/bias', got no v"),
        (lambda v: v.update({"model/d": np.zeros(1)}), "'model/d', got a value, but no such var"),
        (lambda v: v.update({"model/m/a/bias": np.zeros(4, np.float32)}),
         r"'model/m/a/bias' to be float32\[3\], got float32\[4\]"),
        (lambda v: v.update({"model/m/a/bias": np.zeros(3, np.int32)}),
         r"'model/m/a/bias' to be float32\[3\], got int32\[3\]"),
    ],
)  # fmt: skip
def test_other_variables_are_refused_and_nothing_is_changed(change, message):
    source, target = model(), model()
    values = checkpoint.values_of(source.variables, "model")
    change(values)
    before = checkpoint.digest(checkpoint.values_of(target.variables, "model"))
    with pytest.raises(ValueError, match=message):
        checkpoint.restore(target.variables, "model", values, "here")
    assert checkpoint.digest(checkpoint.values_of(target.variables, "model")) == before


def test_other_prefixes_are_left_alone():
    source, target = model(), model()
    values = checkpoint.values_of(source.variables, "model")
    checkpoint.restore(target.variables, "model", {**values, "best/x": np.zeros(1)}, "here")
