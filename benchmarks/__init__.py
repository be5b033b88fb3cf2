"""Benchmarks: `make bench`, or `python -m benchmarks`. See docs/benchmarks.md."""
