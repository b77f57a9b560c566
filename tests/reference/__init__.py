"""Losses in float64 NumPy, written from the formulas and without JAX or fdjax."""
