"""Measurements, side by side in one run; `python -m benchmarks.<name> --help`.

They run from a checkout of the repository: some contenders use the tests' stand-ins.
"""
