"""Experiments: one module, one claim."""
