"""One frozen dataclass a method, wiring its maths to the `Quantizer` protocol."""

from kerasbits.quantizers.apot import APoT
from kerasbits.quantizers.base import Quantizer, Site, VariableSpec
from kerasbits.quantizers.bayesian_bits import BayesianBits
from kerasbits.quantizers.bitpruning import BitPruning
from kerasbits.quantizers.bsq import BSQ
from kerasbits.quantizers.least_squares import LeastSquaresBinary
from kerasbits.quantizers.uniform import Uniform

NAMES: dict[str, type[Quantizer]] = {
    "bitpruning": BitPruning,
    "least_squares_binary": LeastSquaresBinary,
    "bsq": BSQ,
    "apot": APoT,
    "bayesian_bits": BayesianBits,
    "uniform": Uniform,
}
"""Short names of the methods with default settings."""


def get(identifier: Quantizer | str | dict | None) -> Quantizer | None:
    """The quantizer meant by an instance, a name, or a serialized configuration.

    Raises:
        ValueError: an unknown name, or something that is no quantizer.
    """
    if identifier is None or isinstance(identifier, Quantizer):
        return identifier
    if isinstance(identifier, str) and identifier in NAMES:
        return NAMES[identifier]()
    if isinstance(identifier, dict) and "class_name" in identifier:
        import keras

        return get(keras.saving.deserialize_keras_object(identifier))
    names = ", ".join(NAMES)
    raise ValueError(f"expected a quantizer, one of the names {names}, or None, got {identifier!r}")


__all__ = [
    "BSQ",
    "NAMES",
    "APoT",
    "BayesianBits",
    "BitPruning",
    "LeastSquaresBinary",
    "Quantizer",
    "Site",
    "Uniform",
    "VariableSpec",
    "get",
]
