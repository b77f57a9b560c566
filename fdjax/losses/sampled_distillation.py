"""Feedback Distillation from the sampled tokens alone, as a policy gradient."""

import jax
from jaxtyping import Array, Bool, Float, Float32

from fdjax.ops import divide_by_normalizer, log_ratio, masked_mean, masked_sum, select
from fdjax.records import Metrics

__all__ = ["sampled_distillation_loss"]


def sampled_distillation_loss(
    logprobs: Float[Array, "B T"],
    *,
    teacher_logprobs: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    normalizer: Float[Array, ""],
    weights: Float[Array, "B T"] | None = None,
) -> tuple[Float32[Array, ""], Metrics]:
    """Policy gradient of the reverse KL(p‖q), estimated from the tokens drawn from p.

    1/Z Σ_bt m_bt w_bt sg(log p_bt − log q_bt) log p_bt

    The expectation of its gradient over tokens drawn from p is that of `reverse_kl`.
    Its variance is that of one sample: use it where the teacher's log-probabilities
    are all there is, as from an API.

    Args:
      logprobs: log p(token) in nats; carries the gradient.
      teacher_logprobs: log q(token) in nats, of the teacher that reads the feedback.
      mask: True for tokens the student sampled in samples that have feedback.
      normalizer: Z, scored tokens in the global batch; where 0, so is the loss.
      weights: w, per-token factors without gradient; None means 1.

    Returns:
      The loss, whose value means little, and the metric fd/sampled_gap (nats, mean of
      log p − log q over scored tokens: an unbiased estimate of KL(p‖q)).

    Raises:
      ConfigError: shapes do not agree.

    Reference: arXiv:2601.20802, the token-level estimate of its distillation loss.
    """
    fixed = jax.lax.stop_gradient(logprobs)
    gap = log_ratio(fixed, old_logprobs=teacher_logprobs, mask=mask)
    factor = gap
    if weights is not None:
        factor = gap * jax.lax.stop_gradient(select(weights, mask))
    total = masked_sum(factor * select(logprobs, mask), mask)
    return divide_by_normalizer(total, normalizer), {
        "fd/sampled_gap": masked_mean(gap, mask)
    }
