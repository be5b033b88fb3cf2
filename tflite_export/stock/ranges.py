"""Ranges of what the layers of a stock file give, measured with a sample."""

from __future__ import annotations

import warnings

import keras
import numpy as np

from tflite_export.collect import PackedModel
from tflite_export.samples import given_inputs, random_inputs, whole_batches
from tflite_export.written import WrittenFile

RANDOM_SAMPLES = 32
"""Random samples if none are given."""

_AT_ONCE = 16


def output_ranges(
    written: WrittenFile, model: keras.Model, packed: PackedModel, sample=None
) -> dict[str, tuple[float, float]]:
    """The smallest and the largest output of each layer, over all its uses.

    Args:
        written: a file in floats.
        model, packed: what it was made of.
        sample: inputs, an array or a structure of arrays as the model takes it. Random if None.

    Raises:
        ValueError: a sample that does not fit the model.
    """
    from ai_edge_litert import interpreter as litert

    if sample is None:
        inputs = random_inputs(model, packed.graph, RANDOM_SAMPLES)
    else:
        inputs = given_inputs(model, sample)
    with warnings.catch_warnings():  # it warns of the memory that kept tensors take
        warnings.simplefilter("ignore")
        runner = litert.Interpreter(
            model_content=written.data, experimental_preserve_all_tensors=True
        )
    details = runner.get_input_details()
    fixed = int(details[0]["shape_signature"][0])
    step = _AT_ONCE if fixed < 0 else fixed
    inputs = whole_batches(inputs, None if fixed < 0 else fixed)
    found = dict.fromkeys(written.outputs, (np.inf, -np.inf))
    for start in range(0, len(inputs[0]), step):
        batch = [a[start : start + step] for a in inputs]
        for detail, a in zip(details, batch, strict=True):
            runner.resize_tensor_input(detail["index"], a.shape)
        runner.allocate_tensors()
        for detail, a in zip(details, batch, strict=True):
            runner.set_tensor(detail["index"], a.astype(detail["dtype"]))
        runner.invoke()
        for path, tensors in written.outputs.items():
            for tensor in tensors:
                y = runner.get_tensor(tensor)
                low, high = found[path]
                found[path] = min(low, float(y.min())), max(high, float(y.max()))
    return found
