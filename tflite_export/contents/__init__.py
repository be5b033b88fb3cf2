"""What is in an exported file: the tables of `python -m tflite_export.inspect`."""
