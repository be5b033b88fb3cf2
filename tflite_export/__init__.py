"""Export of kerasbits models to files that run.

Example:
    from tflite_export import Interpreter, export
    result = export(model, "m.tflite", sample=x)
    y = Interpreter("m.tflite").predict(x)
"""

from tflite_export.exporter import ExportResult, export
from tflite_export.interpreter import Interpreter, delegate_path
from tflite_export.marked import convert
from tflite_export.verify import Verification, VerificationError

__all__ = [
    "ExportResult",
    "Interpreter",
    "Verification",
    "VerificationError",
    "convert",
    "delegate_path",
    "export",
]
