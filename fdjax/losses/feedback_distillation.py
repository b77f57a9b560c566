"""Feedback Distillation: the student learns what the feedback-reading teacher knows."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from fdjax.ops import (
    Divergence,
    divide_by_normalizer,
    entropy,
    forward_kl,
    masked_mean,
    masked_sum,
    scale_logits,
    select,
)
from fdjax.ranges import Number, require
from fdjax.records import Metrics

__all__ = ["DIVERGENCE_CLIP", "feedback_distillation_loss"]

DIVERGENCE_CLIP = Number(above=0)
"""Nats; a clip of 0 would leave no gradient at all."""


def feedback_distillation_loss(
    student_logits: Float[Array, "B T V"],
    *,
    teacher_logits: Float[Array, "B T V"],
    mask: Bool[Array, "B T"],
    normalizer: Float[Array, ""],
    divergence: Divergence = forward_kl,
    temperature: float = 1.0,
    divergence_clip: float | None = None,
    weights: Float[Array, "B T"] | None = None,
) -> tuple[Float32[Array, ""], Metrics]:
    """Divergence of the student from its teacher along the student's own tokens.

    1/Z Σ_bt m_bt w_bt D(q_bt, p_bt),  p = softmax(student/τ), q = sg softmax(teacher/τ)

    With a clip c, min(D, c) takes the place of D: a token whose divergence is larger
    counts as c and has no gradient.

    Row b holds a trajectory y that the student sampled. Position t of the student
    predicts y_t from the prompt and y_<t; position t of the teacher predicts the same
    y_t from a prompt that also holds the feedback on y. No log-probability of y itself
    appears: the gradient reaches every token of the vocabulary at every position.

    Args:
      student_logits: carry the gradient.
      teacher_logits: aligned by y, not by absolute position; the gradient stops here.
      mask: True for tokens the student sampled in samples that have feedback. Tool
        output, prompts, padding and samples without feedback are False.
      normalizer: Z, scored tokens in the global batch; where 0, so is the loss.
      divergence: `(student_logits, teacher_logits) -> [B, T]`, such as `forward_kl`,
        `reverse_kl` or `functools.partial(generalized_jsd, alpha=0.5)`.
      temperature: τ at which y was sampled; divides both logits. Positive.
      divergence_clip: c in nats, positive; None lets every token have its way.
      weights: w, per-token factors without gradient; None means 1. For y sampled from
        older weights, `ops.truncated_importance_weights`.

    Returns:
      The loss in nats per token, and metrics, each a mean over scored tokens, not
      weighted by w: fd/divergence (nats, the D given, not clipped), fd/forward_kl
      (nats, KL(q‖p) whatever D is), fd/student_entropy and fd/teacher_entropy (nats, at
      τ); with a clip also fd/clip_fraction (share of tokens that it cuts).

    Raises:
      ConfigError: the temperature or the clip is not positive, or shapes do not agree.

    Reference: arXiv:2605.30861; the same loss with an EMA teacher is arXiv:2601.20802,
    and with a fixed one arXiv:2306.13649.
    """
    student = scale_logits(select(student_logits, mask), temperature)
    teacher = jax.lax.stop_gradient(
        scale_logits(select(teacher_logits, mask), temperature)
    )
    per_token = divergence(student, teacher)
    kept, clipped = _clipped(per_token, divergence_clip)
    if weights is not None:
        kept = kept * jax.lax.stop_gradient(select(weights, mask))
    loss = divide_by_normalizer(masked_sum(kept, mask), normalizer)

    observed = jax.lax.stop_gradient(student)
    metrics = {
        "fd/divergence": masked_mean(jax.lax.stop_gradient(per_token), mask),
        "fd/forward_kl": masked_mean(forward_kl(observed, teacher), mask),
        "fd/student_entropy": masked_mean(entropy(observed), mask),
        "fd/teacher_entropy": masked_mean(entropy(teacher), mask),
    }
    if clipped is not None:
        metrics["fd/clip_fraction"] = masked_mean(clipped.astype(jnp.float32), mask)
    return loss, metrics


def _clipped(
    divergence: Float32[Array, "B T"], clip: float | None
) -> tuple[Float32[Array, "B T"], Bool[Array, "B T"] | None]:
    """The divergence, at most the clip, and where that cuts; None without a clip."""
    if clip is None:
        return divergence, None
    require("divergence_clip", clip, DIVERGENCE_CLIP)
    cut = divergence > clip
    return jnp.where(cut, jnp.float32(clip), divergence), cut
