"""Cost of training beside float: `python -m benchmarks.training`. See docs/benchmarks.md."""
