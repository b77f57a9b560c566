"""Feedback Distillation and GRPO for Lean 4 provers, in JAX.

Import the part you need: `fdjax.losses` and `fdjax.advantages` are pure functions
over arrays, `fdjax.lean` verifies proofs without JAX, `fdjax.train` puts both
together.
"""

__version__ = "0.1.0"
