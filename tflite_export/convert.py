"""Export a saved model: `python -m tflite_export.convert --model=m.keras --output=m.tflite`."""

from __future__ import annotations

import sys

import keras
import numpy as np
from absl import flags

import kerasbits as kb
from kerasbits import sites
from kerasbits.packed import MAX_CODE_BITS
from tflite_export.command_line import UsageError, run
from tflite_export.exporter import ACTIVATIONS, NARROWEST, PROFILES, export
from tflite_export.loading import load
from tflite_export.samples import given_inputs

USAGE = """\
python -m tflite_export.convert --model=m.keras --output=m.tflite

Exports a quantized model that was saved with model.save(), by Keras 3 or by tf_keras, checks that
the file computes what the model computes, and prints the layers in it. The output is a TFLite file
if its name ends in .tflite, or a file for the kerasbits C runtime if it ends in .kbits.

A float model is quantized first, without training, if there are inputs to set its ranges by:

python -m tflite_export.convert --model=float.keras --calibrate=x.npy --output=m.tflite"""

REMEDIES = {"kerasbits.freeze": "--freeze", "kerasbits.quantize_model": "--calibrate=FILE"}
"""Flags that do what an error of `export` recommends."""


def main(argv: list[str]) -> int:
    """Run the program with `argv`, its own name first; the exit status."""
    return run(argv, USAGE, _define, _work)


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "model",
        None,
        "The saved model: a .keras or .h5 file, or the folder of a SavedModel of tf_keras.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "output", None, "File to write, ending in .tflite or .kbits.", flag_values=values
    )
    flags.DEFINE_enum(
        "profile",
        "packed",
        PROFILES,
        "'packed' keeps every learned width and needs the kerasbits library; 'stock' runs in any "
        "TFLite interpreter.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "activations",
        "float",
        ACTIVATIONS,
        "'int8' makes a stock file that computes in integers.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "narrowest",
        "2",
        [str(bits) for bits in NARROWEST],
        "Bits of the narrowest type that a stock file stores weights in. INT2 needs LiteRT 2.1, "
        "INT4 needs 1.0; INT8 is read by every runtime, and fast.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "sample",
        None,
        "Inputs to check with: .npy, or .npz with an array for each input, by name or in order. "
        "They also set ranges with --activations=int8.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "calibrate",
        None,
        "Quantize a float model without training. The file holds inputs like those of the training "
        "to set ranges by, a hundred or more, and stands in for --sample.",
        flag_values=values,
    )
    for name, what in (("bits", "kernels"), ("input_bits", "inputs of their layers")):
        flags.DEFINE_integer(
            name,
            8,
            f"Bits of the {what}, with --calibrate.",
            lower_bound=2,
            upper_bound=MAX_CODE_BITS,
            flag_values=values,
        )
    flags.DEFINE_bool("verify", True, "Compare the file with the model.", flag_values=values)
    flags.DEFINE_bool("freeze", False, "Freeze the bits of the model first.", flag_values=values)


def _work(values: flags.FlagValues, rest: list[str]) -> None:
    if rest:
        raise UsageError(f"expected flags only, got {rest[0]!r}")
    for name in ("model", "output"):
        if not values[name].value:
            raise UsageError(f"expected --{name}=FILE, got none")
    for name in ("bits", "input_bits"):
        if values[name].present and not values.calibrate:
            raise UsageError(f"--{name}: expected --calibrate=FILE with it, got none")
    print(f"loading {values.model}", flush=True)
    model = load(values.model)
    data = {
        name: None if values[name].value is None else load_inputs(name, values[name].value, model)
        for name in ("sample", "calibrate")
    }
    if values.calibrate:
        model = quantize(model, data["calibrate"], values.bits, values.input_bits)
    elif values.freeze:
        kb.freeze(model)
    print(f"writing {values.output}", flush=True)
    try:
        result = export(
            model,
            values.output,
            profile=values.profile,
            sample=data["sample"] or data["calibrate"],
            verify=values.verify,
            activations=values.activations,
            narrowest=int(values.narrowest),
        )
    except ValueError as error:
        for remedy, flag in REMEDIES.items():
            if remedy in str(error) and not values.calibrate:
                raise ValueError(f"{error}, or use {flag}") from None
        raise
    print(result)


def quantize(model: keras.Model, data: list[np.ndarray], bits: int, input_bits: int) -> keras.Model:
    """A frozen copy of a float model, whose evenly spaced grids span the weights and the data.

    Each output channel of a kernel has a scale of its own, which costs little and matters most
    where nothing is trained.

    Args:
        model: the float model, which is not changed.
        data: an array for each input, like those that the model was trained on.
        bits: bits a weight, 2 to 16.
        input_bits: bits of the inputs of the same layers, 2 to 16.

    Raises:
        ValueError: the model has quantized layers already, or none that can be.
    """
    place = next(sites.places(model), None)
    if place is not None:
        raise ValueError(
            f"calibrate: expected a float model, got one with quantized layers ('{place.path}')"
        )
    kernel = kb.Uniform(bits, granularity="channel")
    q = kb.quantize_model(model, kernel, inputs=kb.Uniform(input_bits))
    kb.calibrate(q, data[0] if len(data) == 1 else keras.tree.pack_sequence_as(q.input, data))
    kb.freeze(q)
    return q


def load_inputs(name: str, path: str, model: keras.Model) -> list[np.ndarray]:
    """The arrays of a .npy or .npz file in the order and the types of the model's inputs.

    Args:
        name: what errors call the file.
        path: an array, or one for each input, by name or in order.
        model: says what inputs there are.

    Raises:
        ValueError: no such file, or not one array for each input that fits it.
    """
    name = f"{name} '{path}'"
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{name}: expected a .npy or .npz file ({error})") from None
    if isinstance(loaded, np.ndarray):
        return given_inputs(model, loaded, name)
    with loaded:
        arrays = {key: loaded[key] for key in loaded.files}
    names = [tensor.name for tensor in keras.tree.flatten(model.inputs)]
    if len(arrays) != len(names):
        raise ValueError(f"{name}: expected arrays for {names}, got {list(arrays)}")
    ordered = [arrays[n] for n in names] if set(names) == set(arrays) else list(arrays.values())
    return given_inputs(model, ordered, name)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
