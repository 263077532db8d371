"""Benchmarks for developers. Each is a command: `python -m benchmarks.NAME --help`."""
