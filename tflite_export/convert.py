"""Export a saved model: `python -m tflite_export.convert --model=m.keras --output=m.tflite`."""

from __future__ import annotations

import sys

import keras
import numpy as np
from absl import flags

from kerasbits import lifecycle
from tflite_export.command_line import UsageError, run
from tflite_export.exporter import ACTIVATIONS, NARROWEST, PROFILES, export
from tflite_export.loading import load

USAGE = """\
python -m tflite_export.convert --model=m.keras --output=m.tflite

Exports a quantized model that was saved with model.save(), by Keras 3 or by tf_keras, checks that
the file computes what the model computes, and prints the layers in it. The output is a TFLite file
if its name ends in .tflite, or a file for the kerasbits C runtime if it ends in .kbits."""


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
        "Inputs to check with: .npy, or .npz with an array for each input, by name or in order.",
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
    print(f"loading {values.model}", flush=True)
    model = load(values.model)
    sample = None if values.sample is None else load_sample(values.sample, model)
    if values.freeze:
        lifecycle.freeze(model)
    print(f"writing {values.output}", flush=True)
    try:
        result = export(
            model,
            values.output,
            profile=values.profile,
            sample=sample,
            verify=values.verify,
            activations=values.activations,
            narrowest=int(values.narrowest),
        )
    except ValueError as error:
        if "kerasbits.freeze" in str(error):
            raise ValueError(f"{error}, or use --freeze") from None
        raise
    print(result)


def load_sample(path: str, model: keras.Model) -> list[np.ndarray]:
    """The arrays of a .npy or .npz file in the order of the model's inputs.

    Raises:
        ValueError: no such file, or not one array for each input.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"sample '{path}': expected a .npy or .npz file ({error})") from None
    if isinstance(loaded, np.ndarray):
        return [loaded]
    with loaded:
        arrays = {name: loaded[name] for name in loaded.files}
    names = [tensor.name for tensor in keras.tree.flatten(model.inputs)]
    if len(arrays) != len(names):
        raise ValueError(f"sample '{path}': expected arrays for {names}, got {list(arrays)}")
    return [arrays[n] for n in names] if set(names) == set(arrays) else list(arrays.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv))
