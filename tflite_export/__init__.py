"""Export of kerasbits models to files that run.

Example:
    from tflite_export import Interpreter, export
    result = export(model, "m.tflite", sample=x)
    y = Interpreter("m.tflite").predict(x)
"""

from tflite_export.converter import convert as float_tflite
from tflite_export.exporter import export
from tflite_export.interpreter import Interpreter, delegate_path
from tflite_export.result import ExportResult, LayerResult
from tflite_export.verification.result import Verification, VerificationError

__all__ = [
    "ExportResult",
    "Interpreter",
    "LayerResult",
    "Verification",
    "VerificationError",
    "delegate_path",
    "export",
    "float_tflite",
]
