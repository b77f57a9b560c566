"""The teacher: a float32 exponential moving average of the policy."""

from typing import Any

import jax
import jax.numpy as jnp

from fdjax.ranges import Number, require

__all__ = ["TEACHER_RATE", "init_teacher", "update_teacher"]

TEACHER_RATE = Number(least=0, most=1)
"""η; 0 freezes the teacher, 1 makes it the live policy."""


def init_teacher(params: Any) -> Any:
    """A float32 copy of the policy, in memory of its own."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32, copy=True), params)


def update_teacher(teacher: Any, params: Any, *, rate: float) -> Any:
    """φ ← (1 − η) φ + η θ after each optimizer step (arXiv:2601.20802, EMA teacher).

    Args:
      teacher: φ, float32; a bfloat16 average would stand still, because η times the
        difference rounds away.
      params: θ, any floating dtype, same tree.
      rate: η in [0, 1]; 0 freezes the teacher, 1 makes it the live policy.

    Raises:
      ConfigError: the rate is not in [0, 1].
    """
    require("rate", rate, TEACHER_RATE)
    if rate == 0:
        # Not 0 · (θ − φ), which is NaN where θ is.
        return teacher
    return jax.tree.map(
        lambda old, new: old + rate * (new.astype(jnp.float32) - old), teacher, params
    )
