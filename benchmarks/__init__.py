"""Accord beside what would be written instead, measured in one run: `make bench`, or `python -m benchmarks --help`."""
