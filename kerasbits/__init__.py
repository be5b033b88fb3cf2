"""kerasbits: learn how many bits each part of a Keras model needs.

Example:
    import kerasbits as kb
    q = kb.quantize_model(model, kernel="bitpruning", inputs=kb.Uniform(bits=8))
    q.compile(...); q.fit(...)
    kb.freeze(q)
    kb.summary(q)
"""

from kerasbits import callbacks, layers, packed
from kerasbits.lifecycle import adjust, calibrate, freeze
from kerasbits.model import quantize_model
from kerasbits.quantizers import (
    BSQ,
    APoT,
    BayesianBits,
    BitPruning,
    LeastSquaresBinary,
    Quantizer,
    Site,
    Uniform,
    VariableSpec,
)
from kerasbits.report import Report, report, summary
from kerasbits.rules import Rule
from kerasbits.sites import set_shares

__version__ = "0.1.0"

__all__ = [
    "BSQ",
    "APoT",
    "BayesianBits",
    "BitPruning",
    "LeastSquaresBinary",
    "Quantizer",
    "Report",
    "Rule",
    "Site",
    "Uniform",
    "VariableSpec",
    "adjust",
    "calibrate",
    "callbacks",
    "freeze",
    "layers",
    "packed",
    "quantize_model",
    "report",
    "set_shares",
    "summary",
]
