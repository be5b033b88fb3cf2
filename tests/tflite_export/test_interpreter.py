"""Running files: shapes, batches, broken files, the stock interpreter by hand."""

import numpy as np
import pytest
from ai_edge_litert import interpreter as litert
from exportable import PAIRS, SHAPE, frozen, images, network

from tflite_export import Interpreter, delegate_path, export, float_tflite


@pytest.fixture(scope="module")
def model():
    return frozen(network(), *PAIRS["uniform4"])


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    return export(model, tmp_path_factory.mktemp("file") / "m.tflite", verify=False).path


def test_any_batch_size_gives_the_same(path):
    x = images(7)
    one = Interpreter(path).predict(x, batch_size=1)
    for size in (2, 7, 64):
        np.testing.assert_allclose(Interpreter(path).predict(x, batch_size=size), one, rtol=1e-5)


def test_two_interpreters_at_once(path):
    a, b = Interpreter(path), Interpreter(path, threads=2)
    x = images(4)
    np.testing.assert_array_equal(a.predict(x), b.predict(x))
    np.testing.assert_array_equal(a.predict(x[:2]), b.predict(x)[:2])


def test_threads_of_a_kbits_file(model, tmp_path):
    path = export(model, tmp_path / "m.kbits", verify=False).path
    x = images(4)
    one = Interpreter(path).predict(x)
    np.testing.assert_array_equal(Interpreter(path, threads=3).predict(x), one)
    with pytest.raises(ValueError, match="1 to 256 threads, got 0"):
        Interpreter(path, threads=0)


def test_stock_interpreter_with_our_delegate(path):
    delegate = litert.load_delegate(str(delegate_path()))
    stock = litert.Interpreter(str(path), experimental_delegates=[delegate])
    stock.allocate_tensors()
    x = images(1)
    stock.set_tensor(stock.get_input_details()[0]["index"], x)
    stock.invoke()
    found = stock.get_tensor(stock.get_output_details()[0]["index"])
    np.testing.assert_array_equal(found, Interpreter(path).predict(x))


def test_stock_interpreter_without_it_says_what_is_missing(path):
    with pytest.raises(RuntimeError, match="Kerasbits"):
        litert.Interpreter(str(path)).allocate_tensors()


def test_plain_files_run_too(tmp_path):
    model = network()
    file = tmp_path / "float.tflite"
    file.write_bytes(float_tflite(model))
    x = images(3)
    found = Interpreter(file).predict(x)
    np.testing.assert_allclose(found, model.predict(x, verbose=0), atol=1e-5)


@pytest.mark.parametrize(
    "shape", [(2, 9, 9), (2, 9, 9, 4), (2, 8, 9, 3), (0, *SHAPE), (9, 9, 3, 1)]
)
def test_wrong_shapes_are_refused(path, shape):
    with pytest.raises(ValueError, match=r"expected shape \(batch, 9, 9, 3\), got"):
        Interpreter(path).predict(np.zeros(shape, np.float32))


def test_wrong_number_of_inputs(path):
    with pytest.raises(ValueError, match="expected 1 inputs, got 2"):
        Interpreter(path).predict([images(1), images(1)])


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        Interpreter(tmp_path / "none.tflite")


def test_no_broken_file_is_run(path, tmp_path):
    """Any changed byte and any lost end is found before the runtime sees the file."""
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    broken = tmp_path / "broken.tflite"
    for at in rng.integers(0, len(data), 60):
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        broken.write_bytes(changed)
        with pytest.raises(ValueError, match=r"file '.*broken\.tflite'"):
            Interpreter(broken)
    for end in [0, 1, 7, 100, *rng.integers(0, len(data), 10), len(data) - 1]:
        broken.write_bytes(data[:end])
        with pytest.raises(ValueError, match=r"file '.*broken\.tflite'"):
            Interpreter(broken)
    broken.write_bytes(b"not a model at all")
    with pytest.raises(ValueError, match="expected a TFLite file"):
        Interpreter(broken)


def test_broken_blob_with_a_right_file_checksum(path, tmp_path):
    """What a careless tool might write: the blob's own checksum still guards the kernel."""
    from tflite_export import flatbuffer
    from tflite_export.tflite_writer import packed_blobs

    tree = flatbuffer.read(path.read_bytes())
    blob = packed_blobs(tree)["valid"]
    buffer = next(b for b in tree.buffers if b.data is not None and bytes(b.data) == blob)
    data = bytearray(blob)
    data[len(data) // 2] ^= 4
    buffer.data = np.frombuffer(bytes(data), np.uint8)
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(flatbuffer.write(tree))
    with pytest.raises(ValueError, match="crc32"):
        Interpreter(broken)


@pytest.mark.parametrize("size", [0, -1, 2.5, "a"])
def test_wrong_batch_sizes(path, size):
    with pytest.raises(ValueError, match="expected a batch_size of at least 1"):
        Interpreter(path).predict(images(2), batch_size=size)


def test_lists_of_numbers_are_one_input(path):
    x = images(2)
    np.testing.assert_array_equal(
        Interpreter(path).predict(x.tolist()), Interpreter(path).predict(x)
    )


def test_a_lost_checksum_is_noticed(path, tmp_path):
    """Damage to the mark itself must not make a file look like one that has no checksum."""
    data = path.read_bytes()
    broken = tmp_path / "broken.tflite"
    for mark in (b"kerasbits crc32:", b"kerasbits_crc32"):
        at = data.index(mark)
        broken.write_bytes(data[:at] + b"K" + data[at + 1 :])
        with pytest.raises(ValueError, match="checksum"):
            Interpreter(broken)
