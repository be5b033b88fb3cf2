"""TFRecords, read without TensorFlow's reader and compared with what its writer wrote."""

import gzip
import io

import numpy as np
import pytest
import tensorflow as tf
from example_modules import example
from PIL import Image

datasets = example("datasets")
folders = example("datasets.record_folder")
source = example("datasets.source")
tfrecord = example("datasets.tfrecord")

RNG = np.random.default_rng(0)


def feature(value):
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=np.atleast_1d(value)))


def record(**features):
    """An example; `_` stands for `/` in names of features."""
    named = {name.replace("_", "/"): feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString()


def encoded(pixels, label):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return record(image_encoded=file.getvalue(), image_class_label=label)


def raw(pixels, label):
    return record(image_raw=pixels.tobytes(), image_shape=pixels.shape, image_class_label=label)


def write(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for data in records:
            writer.write(data)


def noise(count, *shape):
    return RNG.integers(0, 256, (count, *shape), np.uint8)


def load(folder, **options):
    return datasets.load("tfrecords", str(folder), **options)


def test_records_are_those_that_tensorflow_wrote(tmp_path):
    written = [RNG.bytes(size) for size in (0, 1, 63, 64, 65, 1000, 70_000)]
    write(tmp_path / "x", written)
    found = list(tfrecord.records(tmp_path / "x"))
    assert [data for _, data in found] == written
    assert [entry.read() for entry, _ in reversed(found)] == written[::-1]
    write(tmp_path / "x", [])
    assert not list(tfrecord.records(tmp_path / "x"))


@pytest.mark.parametrize(("make", "shape"), [(encoded, (5, 6)), (raw, (5, 6, 1)), (raw, (5, 6, 3))])
def test_images_and_labels_come_from_all_files_of_a_part(make, shape, tmp_path):
    images = noise(12, *shape)
    files = {"train-a.tfrecord": (0, 3), "train.tfrecord-00001-of-00002": (3, 6),
             "val.tfrecord": (6, 8), "test.tfrecords": (8, 12)}  # fmt: skip
    for name, (start, stop) in files.items():
        write(tmp_path / name, [make(images[i], i % 2) for i in range(start, stop)])
    data = load(tmp_path, validation=0.5)
    assert (data.classes, data.labels, data.shape[:2]) == (2, ("0", "1"), (5, 6))
    parts = (data.train, 0, 6), (data.validation, 6, 8), (data.test, 8, 12)
    for part, start, stop in parts:
        found, labels = datasets.everything(part)
        np.testing.assert_array_equal(np.rint(found * 255).reshape(-1, *shape), images[start:stop])
        np.testing.assert_array_equal(labels, np.arange(start, stop) % 2)


def test_missing_parts_are_cut_from_training(tmp_path):
    write(tmp_path / "train.tfrecord", [raw(x, i % 4) for i, x in enumerate(noise(40, 3, 3, 1))])
    data = load(tmp_path, validation=0.25)
    assert [len(p) for p in (data.train, data.validation, data.test)] == [24, 8, 8]
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2, 2]


def test_names_of_classes(tmp_path):
    write(tmp_path / "train.tfrecord", [raw(x, i % 2) for i, x in enumerate(noise(40, 3, 3, 1))])
    (tmp_path / "labels.txt").write_text("ant\nbee\n")
    assert load(tmp_path).labels == ("ant", "bee")
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat")
    with pytest.raises(ValueError, match="none of class 'cat'"):
        load(tmp_path)
    (tmp_path / "labels.txt").write_text("ant\nbee")
    write(tmp_path / "train.tfrecord", [raw(x, i) for i, x in enumerate(noise(3, 3, 3, 1))])
    with pytest.raises(ValueError, match=r"record 2: expected a label from 0 to 1, got 2"):
        load(tmp_path)
    write(tmp_path / "train.tfrecord", [raw(x, 0) for x in noise(40, 3, 3, 1)])
    with pytest.raises(ValueError, match="none of class 'bee'"):
        load(tmp_path)
    (tmp_path / "labels.txt").unlink()
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        load(tmp_path)
    (tmp_path / "labels.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"labels\.txt': expected at least 2 classes, got 0"):
        load(tmp_path)


def test_what_does_not_fit_in_memory_is_read_when_needed(tmp_path, monkeypatch):
    images = noise(40, 4, 4, 1)
    path = tmp_path / "train.tfrecord"
    write(path, [raw(x, i % 2) for i, x in enumerate(images)])
    kept = load(tmp_path)
    small = source.in_memory_if_small
    monkeypatch.setattr(folders, "in_memory_if_small", lambda lazy: small(lazy, 0))
    lazy = load(tmp_path)
    for one, other in zip(*map(datasets.everything, (lazy.train, kept.train)), strict=True):
        np.testing.assert_array_equal(one, other)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"train\.tfrecord', record \d+: expected \d+ bytes, got"):
        datasets.everything(lazy.train)


def test_sizes(tmp_path):
    write(tmp_path / "train.tfrecord", [encoded(x, i % 2) for i, x in enumerate(noise(6, 4, 4))])
    write(tmp_path / "test.tfrecord", [encoded(x, 0) for x in noise(6, 4, 5)])
    with pytest.raises(ValueError, match=r"test\.tfrecord', record 0: expected 4 x 4 pixels as in "
                       r".*train\.tfrecord', record 0, got 4 x 5; give image_size"):  # fmt: skip
        load(tmp_path)
    data = load(tmp_path, validation=0, image_size=7)
    assert data.train.shape == data.test.images([0]).shape[1:] == (7, 7, 1)


PIXELS = noise(1, 2, 2, 1)[0]
BAD_EXAMPLES = {
    "not an example": (b"\xff\xff\xff", "expected a tf.train.Example"),
    "no features": (b"", "one value in the int64_list of feature 'image/class/label', got 0"),
    "no image": (record(image_class_label=0), "bytes_list of feature 'image/encoded', got 0"),
    "no label": (record(image_encoded=b"x", a=1), "features are a, image/encoded"),
    "two labels": (record(image_class_label=[0, 1]), "got 2"),
    "label of bytes": (record(image_class_label=b"0"), "int64_list of feature 'image/class/label'"),
    "negative": (raw(PIXELS, -1), "a label of at least 0, got -1"),
    "no picture": (record(image_encoded=b"x", image_class_label=0), "expected an image"),
    "no shape": (record(image_raw=b"x", image_class_label=0), "'image/shape', got ()"),
    "rank": (raw(PIXELS[0], 0), "height, width, and 1 or 3 channels"),
    "channels": (raw(np.zeros((2, 2, 2), np.uint8), 0), "got (2, 2, 2)"),
    "large": (
        record(image_raw=b"x", image_shape=[2**40, 2**40, 3], image_class_label=0),
        f"expected {3 * 2**80} bytes",
    ),
    "short": (
        record(image_raw=b"x", image_shape=[2, 2, 1], image_class_label=0),
        "expected 4 bytes in feature 'image/raw' for shape (2, 2, 1), got 1",
    ),
}


@pytest.mark.parametrize("kind", BAD_EXAMPLES)
def test_a_bad_example_is_named(kind, tmp_path):
    data, message = BAD_EXAMPLES[kind]
    write(tmp_path / "train-1.tfrecord", [raw(PIXELS, 0)])
    write(tmp_path / "train-2.tfrecord", [raw(PIXELS, 0), data])
    with pytest.raises(ValueError, match=r"train-2\.tfrecord', record 1: ") as error:
        load(tmp_path)
    assert message in str(error.value)


def test_a_damaged_picture_is_found_at_once(tmp_path):
    file = io.BytesIO()
    Image.fromarray(noise(1, 30, 30)[0]).save(file, "jpeg")
    cut = record(image_encoded=file.getvalue()[:-200], image_class_label=1)
    write(tmp_path / "train.tfrecord", [encoded(noise(1, 30, 30)[0], 0), cut])
    with pytest.raises(ValueError, match=r"train\.tfrecord', record 1: expected an image"):
        load(tmp_path)


def test_labels_that_do_not_count_from_0_are_refused(tmp_path):
    path = tmp_path / "train.tfrecord"
    for labels, missing, most in (([1, 2], 0, 2), ([0, 1, 3], 2, 3), ([0, 10**12], 1, 10**12)):
        write(path, [raw(PIXELS, label) for label in labels])
        with pytest.raises(ValueError, match=f"none with label {missing}; .* up to {most}$"):
            load(tmp_path)
    write(path, [raw(PIXELS, label) for label in (0, 1)])
    write(tmp_path / "test.tfrecord", [raw(PIXELS, label) for label in (0, 2)])
    with pytest.raises(
        ValueError, match=r"test\.tfrecord', record 1: expected a label from 0 to 1"
    ):
        load(tmp_path)


def test_every_changed_or_missing_byte_is_found(tmp_path):
    """Where an image could be another one unseen, the checksums say so."""
    path = tmp_path / "train.tfrecord"
    write(path, [raw(PIXELS, 0), raw(PIXELS, 1)])
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        with pytest.raises(ValueError, match=r"train\.tfrecord', record [01]: "):
            list(tfrecord.records(path))
    for length in set(range(1, len(good))) - {len(good) // 2}:
        path.write_bytes(good[:length])
        with pytest.raises(ValueError, match=r"train\.tfrecord', record [01]: "):
            list(tfrecord.records(path))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "train.tfrecord.gz"
    write(path, [raw(PIXELS, 0)])
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match=r"record 0: expected a record, .*must not be compressed"):
        load(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"tfrecord\.gz': expected records, found none"):
        load(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=r"tfrecord\.gz': expected a regular file"):
        load(tmp_path)
    path.rename(tmp_path / "other.tfrecord")
    with pytest.raises(FileNotFoundError, match=r"expected files train\*\.tfrecord, found none"):
        load(tmp_path)
