"""CISPO: the ratio weighs the policy gradient, capped, and is not differentiated."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from fdjax.losses.grpo import policy_change, token_advantages
from fdjax.ops import (
    divide_by_normalizer,
    importance_ratio,
    log_ratio,
    masked_mean,
    masked_sum,
    select,
)
from fdjax.ranges import Number, require
from fdjax.records import Metrics

__all__ = ["cispo_loss"]


def cispo_loss(
    logprobs: Float[Array, "B T"],
    *,
    old_logprobs: Float[Array, "B T"],
    advantages: Float[Array, " B"],
    mask: Bool[Array, "B T"],
    normalizer: Float[Array, ""],
    ratio_cap: float = 5.0,
    weights: Float[Array, "B T"] | None = None,
) -> tuple[Float32[Array, ""], Metrics]:
    """Policy gradient weighted by the capped importance ratio; every token learns.

    −1/Z Σ_bt m_bt w_bt sg(min(r_bt, c)) A_b log p_bt,  r = exp(log p − log p_old)

    Without the stop-gradient r log p would be differentiated, whose derivative
    r (1 + log p) has the wrong sign for every token less likely than 1/e.

    Args:
      logprobs: log p(token) in nats; carries the gradient.
      old_logprobs: log p_old(token) in nats, of the weights that sampled.
      advantages: A, one for each row (`fdjax.advantages`); no gradient.
      mask: True for sampled tokens of samples whose reward is known.
      normalizer: Z, scored tokens in the global batch; where 0, so is the loss. The
        docstring of `losses.grpo` gives Z for the other aggregations.
      ratio_cap: c = 1 + ε_high, a bound on r itself and not a distance from 1, so at
        least 1. The paper gives no number; 5 is ours.
      weights: w, per-token factors without gradient; None means 1.

    Returns:
      The loss, whose gradient is the policy gradient but whose value means little, and
      metrics, each a mean over scored tokens: cispo/clip_fraction (share of ratios
      above the cap), cispo/log_ratio (nats), cispo/kl_k3 (nats, estimate of
      KL(old‖new)).

    Raises:
      ConfigError: the cap is below 1, or shapes do not agree.

    Reference: arXiv:2506.13585, eq. 4 and 5.
    Differs from the paper: no lower bound on r (the paper sets none in effect).
    """
    require(
        "ratio_cap",
        ratio_cap,
        Number(least=1),
        remedy="it caps the ratio itself, 1 + epsilon_high",
    )
    difference = log_ratio(
        jax.lax.stop_gradient(logprobs), old_logprobs=old_logprobs, mask=mask
    )
    ratio = importance_ratio(difference)
    factor = jnp.minimum(ratio, ratio_cap) * token_advantages(advantages, mask)
    if weights is not None:
        factor = factor * jax.lax.stop_gradient(select(weights, mask))
    total = -masked_sum(factor * select(logprobs, mask), mask)
    capped = (ratio > ratio_cap).astype(jnp.float32)
    return divide_by_normalizer(total, normalizer), {
        "cispo/clip_fraction": masked_mean(capped, mask),
        "cispo/log_ratio": masked_mean(difference, mask),
        "cispo/kl_k3": policy_change(logprobs, old_logprobs, mask),
    }
