"""The example in C classifies image files as Keras does, here and on other machines."""

import pathlib
import re
import shutil
import subprocess

import keras
import numpy as np
import pytest
from kernels.machines_for_tests import KERNELS, MACHINES, Board, output_of

import kerasbits
import tflite_export

SOURCE = pathlib.Path(__file__).parents[2] / "examples" / "classify.c"
ROWS, COLUMNS = 12, 10
KINDS = {1: b"P5", 3: b"P6"}

needs_compiler = pytest.mark.skipif(
    not (shutil.which("gcc") and shutil.which("make")), reason="needs gcc and make"
)


def classifier(channels):
    """A frozen model of mixed widths, and images as bytes."""
    keras.utils.set_random_seed(channels)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((ROWS, COLUMNS, channels)),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.DepthwiseConv2D(3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(7, activation="softmax"),
        ]
    )
    model = kerasbits.quantize_model(model, kerasbits.BitPruning())
    images = np.random.default_rng(0).integers(0, 256, (3, ROWS, COLUMNS, channels), np.uint8)
    kerasbits.calibrate(model, scaled(images))
    kerasbits.freeze(model)
    return model, images


def scaled(images):
    return images.astype(np.float32) / np.float32(255)


def write_image(path, image, header=b"%s\n# by hand\n%d %d\n255\n"):
    height, width, channels = image.shape
    path.write_bytes(header % (KINDS[channels], width, height) + image.tobytes())
    return path


@pytest.fixture(scope="module", params=KINDS, ids=["gray", "color"])
def task(request, tmp_path_factory):
    """A file of a model, files of images, and what Keras says of them."""
    folder = tmp_path_factory.mktemp("classify")
    model, images = classifier(request.param)
    tflite_export.export(model, folder / "model.kbits", verify=False)
    paths = [write_image(folder / f"{i}.pnm", image) for i, image in enumerate(images)]
    return folder / "model.kbits", paths, model.predict(scaled(images), verbose=0)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    output_of(["make", "-s", "-C", KERNELS, folder / "classify", f"BUILD={folder}"])
    return folder / "classify"


def check(task, run):
    """`run(model, image)` prints the three best classes of Keras."""
    model, paths, predicted = task
    for path, scores in zip(paths, predicted, strict=True):
        lines = re.findall(r"^class (\d+): (\d\.\d{4})$", run(model, path), re.MULTILINE)
        classes, printed = np.array(lines, float).T
        best = np.argsort(scores)[::-1][:3]
        np.testing.assert_array_equal(classes, best)
        np.testing.assert_allclose(printed, scores[best], atol=2e-4)


@needs_compiler
def test_the_best_classes_are_those_of_keras(task, program):
    check(task, lambda *files: output_of([program, *files]))


@pytest.fixture(scope="module", params=[*MACHINES, "board"])
def runner(request):
    """Runs the example on another machine."""
    machine = MACHINES.get(request.param, Board())
    machine.need()
    program = machine.program(SOURCE if request.param == "board" else "classify")
    return lambda *files: machine.run(program, *files)


def test_other_machines_print_the_same(task, runner):
    check(task, runner)


@needs_compiler
@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (b"%s\n%d %d\n255\n", ROWS - 1, "size that the model takes"),
        (b"%s %d %d 65535 ", ROWS, "8 bits"),
        (b"%s %d %d 0 ", ROWS, "8 bits"),
        (b"%s %d # no height %d", ROWS, "8 bits"),
        (b"P2 %.0s%d %d 255\n", ROWS, "8 bits"),
        (b"%sx%dx%d", ROWS, "8 bits"),
        (b"GIF %s %d %d", ROWS, "PGM or PPM"),
        (b"%s 10 12 255 %.0d%.0d", ROWS - 1, "ends too early"),
    ],
)
def test_other_images_are_refused(tmp_path, task, program, header, rows, message):
    channels = 3 if b"P6" in task[1][0].read_bytes()[:2] else 1
    image = write_image(tmp_path / "i", np.zeros((rows, COLUMNS, channels), np.uint8), header)
    refuse([program, task[0], image], message)


def refuse(command, message):
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("classify: ")
    assert message in done.stderr


@needs_compiler
def test_other_files_are_refused(task, program):
    refuse([program, task[1][0], task[1][0]], "expected")
    refuse([program, task[0], task[0]], "PGM or PPM")
    refuse([program, task[0].with_name("none"), task[1][0]], "cannot be read")
    refuse([program, task[0]], "usage")
