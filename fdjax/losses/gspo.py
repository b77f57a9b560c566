"""GSPO: the clipped surrogate on one ratio for each sequence."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from fdjax.losses.grpo import clipped_surrogate, policy_change
from fdjax.ops import (
    divide_by_normalizer,
    importance_ratio,
    log_ratio,
    masked_mean,
    masked_sum,
    require_rows,
    select,
)
from fdjax.records import Metrics

__all__ = ["gspo_loss"]


def gspo_loss(
    logprobs: Float[Array, "B T"],
    *,
    old_logprobs: Float[Array, "B T"],
    advantages: Float[Array, " B"],
    mask: Bool[Array, "B T"],
    normalizer: Float[Array, ""],
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
) -> tuple[Float32[Array, ""], Metrics]:
    """Clipped policy gradient on the length-normalised ratio of whole sequences.

    −1/Z Σ_b min(s_b A_b, clip(s_b, 1−ε_low, 1+ε_high) A_b),
    s_b = exp(1/|y_b| Σ_t m_bt (log p_bt − log p_old,bt)),  |y_b| = Σ_t m_bt

    Args:
      logprobs: log p(token) in nats; carries the gradient.
      old_logprobs: log p_old(token) in nats, of the weights that sampled.
      advantages: A, one for each row (`fdjax.advantages`); no gradient.
      mask: True for sampled tokens of samples whose reward is known; a row without
        any contributes nothing.
      normalizer: Z, *sequences* with a scored token in the global batch; where 0, so
        is the loss. A sequence must not be split over microbatches or shards.
      clip_low: ε_low in [0, 1]; means move far less than tokens do, hence 3e-4.
      clip_high: ε_high.

    Returns:
      The loss, and metrics: gspo/clip_fraction and gspo/log_ratio (nats per token),
      means over scored sequences, and gspo/kl_k3 (nats, estimate of KL(old‖new)), over
      scored tokens.

    Raises:
      ConfigError: a clip range is impossible, or shapes do not agree.

    Reference: arXiv:2507.18071, eq. 5 and 7; clip ranges of its section 5.1.
    Differs from the paper: |log s| is cut at 20.
    """
    require_rows("advantages", advantages, mask)
    scored = jnp.any(mask, axis=-1)
    length = jnp.sum(mask, axis=-1, dtype=jnp.float32)
    difference = log_ratio(logprobs, old_logprobs=old_logprobs, mask=mask)
    sequence_log_ratio = jnp.sum(difference, axis=-1) / jnp.maximum(length, 1.0)
    surrogate, clipped = clipped_surrogate(
        importance_ratio(sequence_log_ratio),
        jax.lax.stop_gradient(select(advantages, scored)),
        clip_low=clip_low,
        clip_high=clip_high,
    )
    loss = divide_by_normalizer(masked_sum(-surrogate, scored), normalizer)
    observed = jax.lax.stop_gradient(sequence_log_ratio)
    return loss, {
        "gspo/clip_fraction": masked_mean(clipped.astype(jnp.float32), scored),
        "gspo/log_ratio": masked_mean(observed, scored),
        "gspo/kl_k3": policy_change(logprobs, old_logprobs, mask),
    }
