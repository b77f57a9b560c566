"""Group-relative policy optimisation: clipped surrogates on token ratios.

How tokens are averaged is decided by `weights` and `normalizer`, for every loss here
and for `cispo_loss`:

* token mean over the global batch (DAPO, arXiv:2503.14476, eq. 8): no weights,
  normalizer = scored tokens;
* mean over sequences of their token means (arXiv:2402.03300, eq. 3):
  `weights=sequence_mean_weights(mask)`, normalizer = sequences with a scored token;
* constant length (Dr. GRPO, arXiv:2503.20783): no weights, normalizer = sequences ×
  the maximal response length in tokens.

All counts are of the global batch. `old_logprobs` are of the same distribution as
`logprobs`, the softmax of the whole vocabulary at the sampler's temperature, whatever
top-k and top-p left to draw from (`sampling.Sample.logprobs`): else the ratio is
not 1 on policy, and clips remove tokens that no update has moved. The weights also
carry the correction for a sampler that differs numerically from the trainer: multiply
them by `ops.truncated_importance_weights`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from fdjax.ops import (
    divide_by_normalizer,
    importance_ratio,
    kl_k3,
    log_ratio,
    masked_mean,
    masked_sum,
    require_rows,
    select,
)
from fdjax.ranges import Number, require
from fdjax.records import Mean, Metrics

__all__ = [
    "CLIP_HIGH",
    "CLIP_LOW",
    "clipped_surrogate",
    "dual_clip_grpo_loss",
    "grpo_loss",
    "token_advantages",
]

CLIP_LOW = Number(least=0, most=1)
"""ε_low, a distance below 1."""
CLIP_HIGH = Number(least=0)
"""ε_high, a distance above 1."""


def clipped_surrogate(
    ratio: Float32[Array, "*axes"],
    advantages: Float32[Array, "*axes"],
    *,
    clip_low: float,
    clip_high: float,
) -> tuple[Float32[Array, "*axes"], Bool[Array, "*axes"]]:
    """min(r A, clip(r, 1−ε_low, 1+ε_high) A), to be maximised, and where it is cut.

    For A > 0 the gradient ends above 1+ε_high, for A < 0 below 1−ε_low: clipping
    removes the reward for going further, never the way back.

    Raises:
      ConfigError: ε_low is outside [0, 1] or ε_high is negative.
    """
    usual = "it is a distance from 1, usually 0.2 or 0.28"
    require("clip_low", clip_low, CLIP_LOW, remedy=usual)
    require("clip_high", clip_high, CLIP_HIGH, remedy=usual)
    free = ratio * advantages
    bounded = jnp.clip(ratio, 1 - clip_low, 1 + clip_high) * advantages
    return jnp.minimum(free, bounded), bounded < free


def token_advantages(
    advantages: Float[Array, " B"], mask: Bool[Array, "B T"]
) -> Float32[Array, "B T"]:
    """Each row's advantage on its scored tokens, 0 elsewhere; no gradient.

    Raises:
      ConfigError: there is not exactly one advantage for each row.
    """
    require_rows("advantages", advantages, mask)
    spread = jnp.broadcast_to(advantages[:, None], mask.shape)
    return jax.lax.stop_gradient(select(spread, mask))


def _weighted_sum(
    values: Float32[Array, "B T"],
    weights: Float[Array, "B T"] | None,
    mask: Bool[Array, "B T"],
) -> Float32[Array, ""]:
    if weights is None:
        return masked_sum(values, mask)
    return masked_sum(values * jax.lax.stop_gradient(select(weights, mask)), mask)


def _ratio_metrics(
    logprobs: Float[Array, "B T"],
    old_logprobs: Float[Array, "B T"],
    clipped: Bool[Array, "B T"],
    mask: Bool[Array, "B T"],
) -> Metrics:
    new = jax.lax.stop_gradient(logprobs)
    difference = log_ratio(new, old_logprobs=old_logprobs, mask=mask)
    return {
        "grpo/clip_fraction": masked_mean(clipped.astype(jnp.float32), mask),
        "grpo/log_ratio": masked_mean(difference, mask),
        "grpo/kl_k3": policy_change(logprobs, old_logprobs, mask),
    }


def policy_change(
    logprobs: Float[Array, "B T"],
    old_logprobs: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
) -> Mean:
    """Estimate of KL(old‖new) by k3, nats, a mean over scored tokens; no gradient.

    The tokens come from the old policy.
    """
    moved = kl_k3(old_logprobs, reference_logprobs=logprobs, mask=mask)
    return masked_mean(jax.lax.stop_gradient(moved), mask)


def grpo_loss(
    logprobs: Float[Array, "B T"],
    *,
    old_logprobs: Float[Array, "B T"],
    advantages: Float[Array, " B"],
    mask: Bool[Array, "B T"],
    normalizer: Float[Array, ""],
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    weights: Float[Array, "B T"] | None = None,
) -> tuple[Float32[Array, ""], Metrics]:
    """Clipped group-relative policy gradient.

    −1/Z Σ_bt m_bt w_bt min(r_bt A_b, clip(r_bt, 1−ε_low, 1+ε_high) A_b),
    r = exp(log p − log p_old)

    Args:
      logprobs: log p(token) in nats; carries the gradient.
      old_logprobs: log p_old(token) in nats, of the weights that sampled.
      advantages: A, one for each row (`fdjax.advantages`); no gradient.
      mask: True for sampled tokens of samples whose reward is known.
      normalizer: Z, scored tokens in the global batch; where 0, so is the loss. The
        module docstring gives Z for the other aggregations.
      clip_low: ε_low in [0, 1].
      clip_high: ε_high; 0.28 is DAPO's clip-higher, 0.2 the symmetric original.
      weights: w, per-token factors without gradient; None means 1.

    Returns:
      The loss, and metrics, each a mean over scored tokens, not weighted by w:
      grpo/clip_fraction (share of tokens whose gradient the clip removes),
      grpo/log_ratio (nats), grpo/kl_k3 (nats, estimate of KL(old‖new)).

    Raises:
      ConfigError: a clip range is impossible, or shapes do not agree.

    Reference: arXiv:2402.03300, eq. 3; clip-higher: arXiv:2503.14476, eq. 8.
    Differs from the paper: token mean instead of sequence mean unless `weights` say
    otherwise; no KL term (add `ops.kl_k3`, β = 0 is usual); |log r| is cut at 20.
    """
    difference = log_ratio(logprobs, old_logprobs=old_logprobs, mask=mask)
    surrogate, clipped = clipped_surrogate(
        importance_ratio(difference),
        token_advantages(advantages, mask),
        clip_low=clip_low,
        clip_high=clip_high,
    )
    loss = divide_by_normalizer(_weighted_sum(-surrogate, weights, mask), normalizer)
    return loss, _ratio_metrics(logprobs, old_logprobs, clipped, mask)


def dual_clip_grpo_loss(
    logprobs: Float[Array, "B T"],
    *,
    old_logprobs: Float[Array, "B T"],
    advantages: Float[Array, " B"],
    mask: Bool[Array, "B T"],
    normalizer: Float[Array, ""],
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float = 3.0,
    weights: Float[Array, "B T"] | None = None,
) -> tuple[Float32[Array, ""], Metrics]:
    """`grpo_loss` with a floor on the surrogate of negative advantages.

    For A < 0 the surrogate is max(min(r A, clip(r) A), c A): a token that became much
    likelier although it was bad (r > c) no longer dominates the batch.

    Args:
      logprobs: log p(token) in nats; carries the gradient.
      old_logprobs: log p_old(token) in nats, of the weights that sampled.
      advantages: A, one for each row; no gradient.
      mask: True for sampled tokens of samples whose reward is known.
      normalizer: Z, as for `grpo_loss`.
      clip_low: ε_low in [0, 1].
      clip_high: ε_high ≥ 0.
      dual_clip: c, greater than 1 + ε_high.
      weights: w, per-token factors without gradient; None means 1.

    Returns:
      The loss, and the metrics of `grpo_loss`; grpo/clip_fraction counts both clips.

    Raises:
      ConfigError: a clip range is impossible, or shapes do not agree.

    Reference: dual-clip PPO, arXiv:1912.09729.
    """
    require("clip_high", clip_high, CLIP_HIGH)
    require(
        "dual_clip",
        dual_clip,
        Number(above=1 + clip_high),
        remedy="it bounds ratios that the other clip, 1 + clip_high, lets pass; 3.0 is "
        "usual",
    )
    difference = log_ratio(logprobs, old_logprobs=old_logprobs, mask=mask)
    spread = token_advantages(advantages, mask)
    surrogate, clipped = clipped_surrogate(
        importance_ratio(difference), spread, clip_low=clip_low, clip_high=clip_high
    )
    floor = dual_clip * spread
    floored = (spread < 0) & (surrogate < floor)
    surrogate = jnp.where(floored, floor, surrogate)
    loss = divide_by_normalizer(_weighted_sum(-surrogate, weights, mask), normalizer)
    return loss, _ratio_metrics(logprobs, old_logprobs, clipped | floored, mask)
