"""TFLite files of builtin operators only: see docs/stock.md."""
