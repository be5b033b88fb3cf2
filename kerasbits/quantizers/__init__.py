"""One frozen dataclass a method, wiring its maths to the `Quantizer` protocol."""

import difflib
import re

import keras

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


def get(identifier: Quantizer | str | dict | None, role: str | None = None) -> Quantizer | None:
    """The quantizer meant by an instance, a name, or a serialized configuration.

    Args:
        identifier: what is meant.
        role: what it is for, "kernel" or "input"; None if that does not matter.

    Raises:
        ValueError: an unknown name, something that is no quantizer, or one for another role.
    """
    if isinstance(identifier, dict) and "class_name" in identifier:
        identifier = keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, str) and identifier in NAMES:
        identifier = NAMES[identifier]()
    if identifier is not None and not isinstance(identifier, Quantizer):
        raise ValueError(
            f"expected a quantizer, one of the names {', '.join(NAMES)}, or None, got "
            f"{identifier!r}{_meant(identifier)}"
        )
    if identifier is not None and role is not None and role not in identifier.roles:
        raise ValueError(
            f"expected a quantizer for the {role}, got {identifier!r}, which works on "
            f"{' and '.join(identifier.roles)} only"
        )
    return identifier


def _meant(identifier) -> str:
    """The name that was meant, as the end of a message: `BitPruning` is "bitpruning"."""
    if isinstance(identifier, type) and issubclass(identifier, Quantizer):
        return f"; did you mean {identifier.__name__}()?"
    plain = {name.replace("_", ""): name for name in NAMES}
    written = re.sub("[^a-z0-9]", "", str(identifier).lower())
    close = difflib.get_close_matches(written, plain, n=1) if isinstance(identifier, str) else []
    return f"; did you mean {plain[close[0]]!r}?" if close else ""


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
