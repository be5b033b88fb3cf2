"""Every method on every network: all kinds of files, exported, run and compared with Keras."""

import dataclasses

import keras
import numpy as np
import pytest
from acceptance.cases import METHODS, NETWORKS, float_bytes, quantized, samples

from tflite_export import Interpreter, export, flatbuffer
from tflite_export.contents.reading import read_contents

KINDS = {
    "packed": ("packed.tflite", {}),
    "kbits": ("m.kbits", {}),
    "stock": ("stock.tflite", {"profile": "stock"}),
    "int8": ("int8.tflite", {"profile": "stock", "activations": "int8"}),
}
"""Name of the file and options of each kind."""

IN_INTEGERS = {
    "bitpruning": "none",  # zero is no level of its grids
    "least_squares_binary": "ends",
    "bsq": "all",
    "apot": "ends",  # inputs are on level tables
    "bayesian_bits": "all",
}
"""Which layers int8 can hold: first and last have uniform grids in two of the methods."""

GIVEN = 2
"""Samples given for verification; four random ones join them."""


@dataclasses.dataclass
class Case:
    """A method on a network, with its exports."""

    method: str
    network: str
    model: keras.Model
    x: list
    results: dict


LONG = {
    "resnet20": ("least_squares_binary", "apot"),
    "mobilenet_v2_small": ("bitpruning", "bsq", "bayesian_bits"),
}
"""Each method is quick to see on one of the large networks."""

CASES = [
    pytest.param((n, m), id=f"{n}-{m}", marks=[pytest.mark.long] * (m in LONG.get(n, ())))
    for n in NETWORKS
    for m in METHODS
]


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """Quantized once, exported once to each kind of file; exporting verifies."""
    network, method = request.param
    model = quantized(method, network)
    folder, x = tmp_path_factory.mktemp(f"{network}_{method}"), samples(model, GIVEN)
    results = {
        kind: export(model, folder / name, sample=x, **options)
        for kind, (name, options) in KINDS.items()
    }
    yield Case(method, network, model, x, results)
    keras.backend.clear_session()


def test_files_verify(case):
    for kind, result in case.results.items():
        checked = result.verification
        assert checked.layers == len(result.layers) == NETWORKS[case.network].layers, kind
        assert checked.samples == GIVEN + 4, kind
        assert checked.codes > 0, kind
        assert checked.max_error <= 1e-4, kind
        assert checked.max_code_difference <= (1 if kind == "int8" else 0), kind
        if kind != "int8":
            assert checked.ties <= 1e-4 * checked.codes, kind


def test_files_give_what_keras_gives(case):
    """Within 1e-4, unless a rounding tie early in the network moved a sample."""
    structure = case.x if len(case.x) > 1 else case.x[0]
    expected = np.asarray(case.model(structure, training=False))
    found = {kind: Interpreter(r.path).predict(case.x) for kind, r in case.results.items()}
    np.testing.assert_allclose(found["packed"], found["kbits"], atol=1e-5 * np.abs(expected).max())
    for kind, result in case.results.items():
        checked = result.verification
        error = np.abs(found[kind] - expected).max(axis=1) / np.abs(expected).max(axis=1)
        alike = kind != "int8" and checked.clean_samples == checked.samples
        assert error.max() <= (1e-4 if alike else 0.25), kind
        if kind in ("packed", "kbits"):
            assert checked.clean_samples > 0 or error.max() <= 1e-4, kind


def test_integers_where_grids_allow(case):
    integers = {n.name for n in case.results["int8"].layers if "integer operators" in n.note}
    everywhere = {layer.name for layer in case.results["int8"].layers}
    assert (
        integers
        == {"all": everywhere, "ends": everywhere & {"conv1", "logits"}, "none": set()}[
            IN_INTEGERS[case.method]
        ]
    )


def test_files_are_smaller_than_the_float_one(case):
    size = float_bytes(case.network)
    for kind, result in case.results.items():
        assert result.file_bytes < size, kind
        assert result.file_bytes == result.path.stat().st_size, kind
    kept = size * 0.3  # 8 of 32 bits, and what is around them
    assert case.results["packed"].file_bytes < kept
    assert case.results["kbits"].file_bytes < kept


def test_little_besides_weights_and_graph(case):
    for kind, result in case.results.items():
        contents = read_contents(result.path)
        assert contents.code_bytes == result.weight_bytes, kind
        if case.network == "resnet20" and kind in ("packed", "kbits"):
            assert contents.overhead < 9216, kind  # the graph and headers
    if case.network == "resnet20":
        contents = read_contents(case.results["packed"].path)
        graph = bytes_without_blobs(contents) - contents.other_constants
        assert 0 < graph < contents.overhead
        assert contents.overhead - graph < 5120  # headers and alignment of 22 layers


def bytes_without_blobs(contents):
    """Size of a packed TFLite file whose layers have no blobs: the graph alone."""
    with open(contents.path, "rb") as file:
        tree = flatbuffer.read(file.read())
    layers = {layer.name.encode() for layer in contents.layers}
    for tensor in tree.subgraphs[0].tensors:
        if tensor.name in layers:
            tree.buffers[tensor.buffer].data = None
    return len(flatbuffer.write(tree))


def test_the_same_bytes_again(case, tmp_path):
    """Each kind of file on every network, with the methods in turn, to save time."""
    turn = list(METHODS).index(case.method) + list(NETWORKS).index(case.network)
    kind = list(KINDS)[turn % len(KINDS)]
    name, options = KINDS[kind]
    again = export(case.model, tmp_path / name, sample=case.x, verify=False, **options)
    assert again.path.read_bytes() == case.results[kind].path.read_bytes()
