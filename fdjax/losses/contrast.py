"""Contrast: of what a hint changes, only what a wrong hint does not change as well."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from fdjax.ranges import Number, require

__all__ = ["CONTRAST", "contrast_logits"]

CONTRAST = Number(above=0, most=1)
"""c; 1 removes all that a wrong hint does, 0 would be plain distillation."""


def contrast_logits(
    teacher_logits: Float[Array, "*rows V"],
    *,
    wrong_logits: Float[Array, "*rows V"],
    student_logits: Float[Array, "*rows V"],
    strength: float = 1.0,
) -> Float32[Array, "*rows V"]:
    """The teacher's logits without the shift that any hint causes.

    t − c (t' − sg s), so that with c = 1 the target is q* ∝ p · q / q': where a wrong
    hint moves the teacher as the right one does, the target is the student itself.

    A teacher that reads a hint also writes in another style than a student without one,
    and these tokens carry most of the divergence.

    Args:
      teacher_logits: t, under the feedback on this attempt.
      wrong_logits: t', of the same teacher under feedback on another problem.
      student_logits: s; no gradient.
      strength: c in (0, 1].

    Returns:
      Logits of the target; −inf where the teacher's are.

    Raises:
      ConfigError: the strength is not in (0, 1].
    """
    require("strength", strength, CONTRAST)
    target, wrong, student = (
        jax.lax.stop_gradient(logits).astype(jnp.float32)
        for logits in (teacher_logits, wrong_logits, student_logits)
    )
    # Padded vocabularies: −inf in all three, whose difference is NaN.
    possible = target > -jnp.inf
    shift = jnp.where(possible, wrong - student, 0.0)
    return jnp.where(possible, target - strength * shift, -jnp.inf)
