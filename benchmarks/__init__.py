"""Measures, compares and reports; asserts nothing. ``python -m benchmarks.run`` is the entry point."""
