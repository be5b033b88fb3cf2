"""Folders of images: what is found, what pixels come out, what is refused."""

import io
import os

import numpy as np
import pytest
from example_modules import example
from PIL import Image

datasets = example("datasets")
folders = example("datasets.image_folder")
pictures = example("datasets.pictures")
source = example("datasets.source")

RNG = np.random.default_rng(0)


def write(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels, mode).save(path, **options)


def noise(*shape):
    return RNG.integers(0, 256, shape, np.uint8)


def make(folder, classes=("ant", "bee"), count=10, shape=(6, 5)):
    """A folder of PNG files; the pixels by their path below it."""
    found = {}
    for name in classes:
        for i in range(count):
            pixels = found[f"{name}/{i}.png"] = noise(*shape)
            write(folder / name / f"{i}.png", pixels)
    return found


def load(folder, **options):
    return datasets.load("images", str(folder), **options)


def by_pixels(*parts):
    """Label of each image, by its pixels."""
    found = {}
    for part in parts:
        for image, label in zip(*datasets.everything(part), strict=True):
            found[np.rint(255 * image).astype(np.uint8).tobytes()] = int(label)
    return found


def test_a_folder_is_split_into_three_parts(tmp_path):
    truth = make(tmp_path, ("bee", "ant", "Cat"))
    data = load(tmp_path)
    assert (data.classes, data.shape) == (3, (6, 5, 1))
    assert data.labels == ("Cat", "ant", "bee")
    assert [len(p) for p in (data.train, data.validation, data.test)] == [22, 2, 6]
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]
    found = by_pixels(data.train, data.validation, data.test)
    assert found == {
        pixels.tobytes(): data.labels.index(path.split("/")[0]) for path, pixels in truth.items()
    }


def test_given_parts_are_kept(tmp_path):
    parts = {p: make(tmp_path / p, count=n) for p, n in (("train", 6), ("val", 2), ("test", 3))}
    data = load(tmp_path, validation=0.5)
    for part, found in (("train", data.train), ("val", data.validation), ("test", data.test)):
        assert by_pixels(found) == {
            pixels.tobytes(): "ab".index(path[0]) for path, pixels in parts[part].items()
        }
    os.rename(tmp_path / "val", tmp_path / "validation")
    assert by_pixels(load(tmp_path).validation) == by_pixels(data.validation)
    os.rename(tmp_path / "validation", tmp_path / "other")
    cut = load(tmp_path, validation=0.5)
    assert (len(cut.train), len(cut.validation)) == (6, 6)


def test_classes_may_be_called_train_and_test(tmp_path):
    make(tmp_path, ("train", "test"))
    assert load(tmp_path).labels == ("test", "train")


def test_other_and_hidden_files_are_passed_over_and_depth_does_not_matter(tmp_path):
    make(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / "README").write_text("bees")
    (tmp_path / "ant" / "notes.txt").write_text("ants")
    (tmp_path / "ant" / ".hidden.png").write_bytes(b"")
    write(tmp_path / "ant" / "deep" / "down" / "x.PNG", noise(6, 5))
    data = load(tmp_path, validation=0)
    assert data.labels == ("ant", "bee")
    labels = np.concatenate([data.train.labels, data.test.labels])
    assert np.bincount(labels).tolist() == [11, 10]


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP.T], -1)


def modes():
    """File name, what is written, pixels expected."""
    alpha = np.concatenate([COLOURS, RAMP[..., None]], -1)
    gray_alpha = np.stack([RAMP, RAMP[::-1]], -1)
    yield "gray.png", Image.fromarray(RAMP), RAMP[..., None]
    yield "gray.bmp", Image.fromarray(RAMP), RAMP[..., None]
    yield "gray.pgm", Image.fromarray(RAMP), RAMP[..., None]
    yield "colour.png", Image.fromarray(COLOURS), COLOURS
    yield "colour.ppm", Image.fromarray(COLOURS), COLOURS
    yield "alpha.png", Image.fromarray(alpha), COLOURS
    yield "gray_alpha.png", Image.fromarray(gray_alpha), RAMP[..., None]
    yield "bits.png", Image.fromarray(RAMP > 99), 255 * (RAMP > 99)[..., None]
    wide = RAMP.astype(np.uint16) * 256 + 7
    yield "16bit.png", Image.fromarray(wide), RAMP[..., None]
    yield "16bit.pgm", Image.fromarray(wide), RAMP[..., None]
    yield "palette.png", Image.fromarray(COLOURS // 128 * 255).quantize(8), COLOURS // 128 * 255
    yield "palette.gif", Image.fromarray(COLOURS // 128 * 255).quantize(8), COLOURS // 128 * 255


@pytest.mark.parametrize(
    ("name", "image", "expected"), modes(), ids=lambda v: v if v is str else ""
)
def test_pixels_of_every_kind_of_file(name, image, expected, tmp_path):
    image.save(tmp_path / name)
    with open(tmp_path / name, "rb") as file:
        header = pictures.read_header(file, name)
        file.seek(0)
        pixels = pictures.decode(file, name)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)
    assert (*header.size, header.channels) == pixels.shape


def test_jpeg_is_near():
    smooth = np.stack([RAMP // 2 + 60, RAMP // 4, 255 - RAMP // 2], -1)
    file = io.BytesIO()
    Image.fromarray(smooth).save(file, "jpeg", quality=98, subsampling=0)
    file.seek(0)
    assert np.abs(pictures.decode(file, "x").astype(int) - smooth).mean() < 3


def test_one_colour_image_makes_all_images_colour(tmp_path):
    truth = make(tmp_path)
    colours = noise(6, 5, 3)
    write(tmp_path / "bee" / "0a.png", colours)  # neither first nor last
    data = load(tmp_path, validation=0)
    assert data.shape == (6, 5, 3)
    found = by_pixels(data.train, data.test)
    assert found[colours.tobytes()] == 1
    for pixels in truth.values():
        assert np.repeat(pixels[..., None], 3, -1).tobytes() in found


def test_sizes_may_differ_if_all_are_resized(tmp_path):
    make(tmp_path, shape=(6, 5))
    constant = np.full((40, 30), 77, np.uint8)
    write(tmp_path / "bee" / "big.png", constant)
    with pytest.raises(ValueError, match=r"big\.png': expected 6 x 5 pixels as in file .*0\.png', "
                       r"got 40 x 30; give image_size"):  # fmt: skip
        load(tmp_path)
    data = load(tmp_path, image_size=8)
    assert data.shape == (8, 8, 1)
    assert np.full((8, 8), 77, np.uint8).tobytes() in by_pixels(
        data.train, data.validation, data.test
    )


def test_what_does_not_fit_in_memory_is_read_when_needed(tmp_path, monkeypatch):
    make(tmp_path)
    kept = load(tmp_path, seed=3)
    small = source.in_memory_if_small
    monkeypatch.setattr(folders, "in_memory_if_small", lambda lazy: small(lazy, 599))
    lazy = load(tmp_path, seed=3)
    np.testing.assert_array_equal(lazy.train.images([3, 0, 3]), kept.train.images([3, 0, 3]))
    batches = datasets.Batches(lazy.train, 4, augment=lazy.augment)
    for found, step in zip(batches.tf_dataset(0, 6), range(6), strict=True):
        np.testing.assert_array_equal(found[0], batches.batch(step)[0])
    for damaged in (tmp_path / "ant").iterdir():
        damaged.write_bytes(damaged.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"ant/\d\.png': expected an image"):
        datasets.everything(lazy.train)


def truncated(data):
    return data[: len(data) * 2 // 3]


@pytest.mark.parametrize("damage", [truncated, lambda data: b"", lambda data: b"GIF89a" + data])
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp"])
def test_a_damaged_image_is_found_at_once(damage, suffix, tmp_path):
    make(tmp_path, shape=(30, 30))
    path = tmp_path / "bee" / f"x.{suffix}"
    write(path, noise(30, 30))
    load(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"bee/x\.{suffix}'"):
        load(tmp_path)


def test_other_formats_under_a_known_name_are_refused(tmp_path):
    make(tmp_path)
    Image.fromarray(noise(6, 5)).save(tmp_path / "ant" / "x.png", "tiff")
    with pytest.raises(ValueError, match=r"ant/x\.png': expected an image"):
        load(tmp_path)


def empty_class(folder):
    (folder / "cat").mkdir()
    return "cat': expected images (.bmp .gif"


def one_class(folder):
    for path in (folder / "bee").iterdir():
        path.unlink()
    (folder / "bee").rmdir()
    return "a subfolder for each of at least 2 classes, got 1"


def unknown_class(folder):
    make(folder / "train")
    make(folder / "test", ("ant", "cat"))
    return "test/cat': expected a class of the training images, ant, bee"


def empty_test(folder):
    make(folder / "train")
    (folder / "test").mkdir()
    return "test': expected a subfolder for each class, found none"


def too_few(folder):
    for name, count in (("w", 4), ("x", 1), ("z", 5)):  # the fifth image is for testing
        make(folder / "train" / name, ("y",), count)
    return "expected images of each class for training, got none of class 'x'"


@pytest.mark.parametrize("change", [empty_class, one_class, unknown_class, empty_test, too_few])
def test_folders_that_are_no_data_set(change, tmp_path):
    make(tmp_path)
    message = change(tmp_path)
    with pytest.raises(ValueError, match="expected") as error:
        load(tmp_path, validation=0.4)
    assert message in str(error.value)


def test_a_subfolder_that_cannot_be_listed_is_not_passed_over(tmp_path, monkeypatch):
    make(tmp_path)
    make(tmp_path / "ant" / "deep")
    listed = os.scandir

    def scandir(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ValueError, match=r"expected to read '.*/ant/deep', got: Permission denied"):
        load(tmp_path)


def test_what_is_no_regular_file_is_refused(tmp_path):
    make(tmp_path)
    path = tmp_path / "ant" / "pipe.png"
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"pipe\.png': expected a regular file"):
        load(tmp_path)
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"pipe\.png': expected a regular file"):
        load(tmp_path)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(FileNotFoundError, match="expected a folder"):
        load(tmp_path / "x")
