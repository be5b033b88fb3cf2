"""Loading by name, Fashion-MNIST, digits, and how data sets are split."""

import contextlib
import gzip
import os
import struct

import numpy as np
import pytest
import sklearn.datasets
from example_modules import example

datasets = example("datasets")
source = example("datasets.source")


def idx(array):
    head = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


FASHION = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", 60),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", 20),
}


@pytest.fixture
def fashion(tmp_path):
    """Small files in the format of Fashion-MNIST: (folder, arrays)."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, (images_file, labels_file, count) in FASHION.items():
        images = rng.integers(0, 256, (count, 28, 28))
        labels = np.arange(count) % 10
        (tmp_path / images_file).write_bytes(gzip.compress(idx(images)))
        (tmp_path / labels_file).write_bytes(gzip.compress(idx(labels)))
        arrays[part] = images, labels
    return tmp_path, arrays


def test_fashion_mnist_gives_the_pixels_and_labels_of_its_files(fashion):
    folder, arrays = fashion
    data = datasets.load("fashion_mnist", folder, validation=0)
    assert (data.classes, data.shape, data.validation) == (10, (28, 28, 1), None)
    assert data.labels[0] == "T-shirt/top"
    assert data.labels[9] == "ankle boot"
    for part, found in (("train", data.train), ("test", data.test)):
        images, labels = datasets.everything(found)
        assert images.dtype == np.float32
        np.testing.assert_array_equal(images[..., 0], arrays[part][0].astype(np.float32) / 255)
        np.testing.assert_array_equal(labels, arrays[part][1])


def test_digits_are_scikit_learns():
    data = datasets.load("digits")
    truth = sklearn.datasets.load_digits()
    seen = {}
    for part in (data.train, data.validation, data.test):
        for image, label in zip(*datasets.everything(part), strict=True):
            seen[(16 * image[..., 0]).tobytes()] = label
    assert (data.shape, data.classes, data.augment) == ((8, 8, 1), 10, None)
    assert len(data.train) + len(data.validation) + len(data.test) == len(truth.target)
    for image, label in zip(truth.images.astype(np.float32), truth.target, strict=True):
        assert seen[image.tobytes()] == label


def keys(part):
    return {image.tobytes() for image in datasets.everything(part)[0]}


def test_parts_share_no_image_and_the_test_part_is_the_same_for_every_seed():
    first, second = (datasets.load("digits", seed=seed) for seed in (1, 2))
    for data in (first, second):
        assert keys(data.train) | keys(data.validation) | keys(data.test)
        assert not keys(data.train) & keys(data.validation)
        assert not keys(data.test) & (keys(data.train) | keys(data.validation))
    assert keys(first.test) == keys(second.test)
    assert keys(first.validation) != keys(second.validation)
    again = datasets.load("digits", seed=1)
    np.testing.assert_array_equal(again.train.labels, first.train.labels)
    assert keys(again.validation) == keys(first.validation)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.99])
def test_each_class_gives_its_share(share):
    labels = np.repeat(np.arange(4), [10, 200, 37, 3])
    values = np.arange(250, dtype=np.uint8).reshape(250, 1, 1, 1)
    whole = source.Arrays(values, labels, white=1)
    whole = source.Subset(whole, np.random.default_rng(0).permutation(250))
    kept, taken = source.split(whole, share, seed=3)
    assert len(taken) == int(share * 250)
    assert len(kept) + len(taken) == 250
    for label, count in enumerate([10, 200, 37, 3]):
        assert abs(np.sum(taken.labels == label) - share * count) < 1
    order = datasets.everything(whole)[0].ravel().tolist()
    for part in (kept, taken):
        places = [order.index(value) for value in datasets.everything(part)[0].ravel()]
        assert places == sorted(places)


def test_a_subset_of_a_subset_finds_its_images():
    values = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    whole = source.Arrays(values, np.arange(6), white=1)
    part = source.Subset(source.Subset(whole, np.array([5, 3, 1])), np.array([2, 0]))
    np.testing.assert_array_equal(part.images([1, 0, 1]).ravel(), [5, 1, 5])
    np.testing.assert_array_equal(part.labels, [1, 5])


@pytest.mark.parametrize("size", [16, (16, 16)])
def test_images_are_resized(fashion, size):
    folder, arrays = fashion
    data = datasets.load("fashion_mnist", folder, image_size=size)
    assert data.shape == data.train.shape == data.test.shape == (16, 16, 1)
    images = data.test.images(range(20))
    assert images.shape == (20, 16, 16, 1)
    mean = arrays["test"][0].mean() / 255
    assert images.mean() == pytest.approx(mean, abs=0.01)  # an average keeps the mean
    wide = datasets.load("digits", image_size=(8, 12))
    assert wide.train.images([0]).shape == (1, 8, 12, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mnist"}, "'mnist': expected one of fashion_mnist, digits, images, tfrecords"),
        ({"validation": 1.0}, "validation from 0 to less than 1, got 1.0"),
        ({"validation": -0.1}, "validation from 0"),
        ({"validation": 1e-4}, "enough images for a validation part, got 0.0001 of 1438"),
        ({"seed": -1}, "seed of at least 0, got -1"),
        ({"image_size": 0}, "image_size as one or two whole numbers of at least 1, got 0"),
        ({"image_size": (1, 2, 3)}, "image_size"),
        ({"image_size": 8.5}, "image_size"),
        ({"image_size": float("inf")}, "image_size"),
        ({"image_size": "8"}, "image_size"),
        ({"data_dir": "/tmp"}, "no data_dir, got '/tmp'"),
        ({"name": "images"}, "'images': expected a folder, got none; name it with --data_dir"),
        ({"name": "tfrecords"}, "'tfrecords': expected a folder, got none"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match="data set") as error:
        datasets.load(**{"name": "digits", **arguments})
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["fashion_mnist", "images", "tfrecords"])
def test_a_missing_folder(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        datasets.load(name, str(tmp_path / "nowhere"))


def test_missing_fashion_mnist_says_how_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
        datasets.load("fashion_mnist", str(tmp_path))


TRAIN_IMAGES, TRAIN_LABELS, _ = FASHION["train"]
GOOD = gzip.compress(idx(np.arange(60) % 10))
BROKEN = {
    "not gzip": (TRAIN_LABELS, b"hello", "expected a gzipped IDX file"),
    "cut off": (TRAIN_LABELS, GOOD[:-20], "expected a gzipped IDX file"),
    "bit flipped": (TRAIN_LABELS, GOOD[:-5] + bytes([GOOD[-5] ^ 1]) + GOOD[-4:], "gzipped IDX"),
    "empty": (TRAIN_LABELS, gzip.compress(b""), "expected an IDX file of bytes"),
    "floats": (TRAIN_LABELS, gzip.compress(b"\0\0\x0d\1\0\0\0\0"), "expected an IDX file of bytes"),
    "no shape": (TRAIN_LABELS, gzip.compress(b"\0\0\x08\3\0\0"), "expected an IDX file of bytes"),
    "few": (TRAIN_LABELS, gzip.compress(b"\0\0\x08\1\0\0\0\x09123"), "expected (9,) values, got 3"),
    "other count": (TRAIN_LABELS, gzip.compress(idx(np.zeros(59))), "a label for each image"),
    "rank": (TRAIN_IMAGES, gzip.compress(idx(np.zeros((60, 784)))), "a label for each image"),
    "label": (TRAIN_LABELS, gzip.compress(idx(np.full(60, 10))), "labels from 0 to 9, got 10"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named(fashion, kind):
    folder, _ = fashion
    name, data, message = BROKEN[kind]
    (folder / name).write_bytes(data)
    with pytest.raises(ValueError, match="file '") as error:
        datasets.load("fashion_mnist", folder)
    assert message in str(error.value)
    assert TRAIN_LABELS in str(error.value) or name in str(error.value)


def test_a_class_without_training_images_is_named(fashion):
    folder, _ = fashion
    (folder / TRAIN_LABELS).write_bytes(gzip.compress(idx(np.arange(60) % 9)))
    with pytest.raises(ValueError, match="none of class 'ankle boot'"):
        datasets.load("fashion_mnist", folder)


@contextlib.contextmanager
def without_rights(path):
    """As a user who may not read `path`; root may read everything."""
    mode = path.stat().st_mode
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(mode)


@pytest.mark.parametrize("name", ["fashion_mnist", "images", "tfrecords"])
def test_a_folder_that_may_not_be_read_is_named(name, fashion):
    folder, _ = fashion
    (folder / "train.tfrecord").write_bytes(b"")
    with without_rights(folder), pytest.raises((ValueError, FileNotFoundError)) as error:
        datasets.load(name, folder)
    assert str(folder) in str(error.value)
