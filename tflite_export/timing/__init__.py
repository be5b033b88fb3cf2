"""How long files and their parts take: what `python -m tflite_export.benchmark` measures."""
