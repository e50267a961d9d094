"""The load benchmark: `python -m benchmarks.load`; see README.md."""
