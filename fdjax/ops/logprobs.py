"""From logits to token log-probabilities, entropy and importance ratios."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from fdjax.ops.masked import select
from fdjax.ranges import Number, require

__all__ = [
    "TEMPERATURE",
    "entropy",
    "importance_ratio",
    "log_ratio",
    "scale_logits",
    "softmax",
    "times",
    "token_logprobs",
    "truncated_importance_weights",
]

TEMPERATURE = Number(above=0)
"""Greedy decoding has no log-probabilities: score it at the temperature of training."""
# exp(20) is 5e8: beyond it a ratio carries no information, only overflow.
_LOG_RATIO_LIMIT = 20.0


def scale_logits(
    logits: Float[Array, "*axes"], temperature: float
) -> Float32[Array, "*axes"]:
    """Logits in float32, divided by the temperature.

    At a temperature other than 1 the largest is 0: the softmax is the same, and what
    rounding a low temperature would magnify is gone.

    Args:
      logits: any float type.
      temperature: positive; that of the sampler, so that the softmax is the
        distribution the tokens were drawn from.

    Raises:
      ConfigError: the temperature is not positive.
    """
    require("temperature", temperature, TEMPERATURE)
    logits = logits.astype(jnp.float32)
    if temperature == 1:
        return logits
    largest = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    return (logits - largest) / temperature


def token_logprobs(
    logits: Float[Array, "*rows V"],
    tokens: Int[Array, "*rows"],
    *,
    temperature: float = 1.0,
) -> Float32[Array, "*rows"]:
    """Log-probability in nats of each token under softmax(logits / temperature).

    Args:
      logits: at the position that predicts the token.
      tokens: ids in [0, V); what padding holds is up to the caller's mask.
      temperature: positive.

    Raises:
      ConfigError: the temperature is not positive.
    """
    scaled = scale_logits(logits, temperature)
    chosen = jnp.take_along_axis(scaled, tokens[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(scaled, axis=-1)


def entropy(
    logits: Float[Array, "*rows V"], *, temperature: float = 1.0
) -> Float32[Array, "*rows"]:
    """Entropy in nats of softmax(logits / temperature): −Σ_v p log p.

    Tokens with a logit of −inf are impossible and contribute nothing.

    Args:
      logits: next-token logits.
      temperature: positive.

    Raises:
      ConfigError: the temperature is not positive.
    """
    return _entropy(scale_logits(logits, temperature))


@jax.custom_jvp
def _entropy(logits: Float32[Array, "*rows V"]) -> Float32[Array, "*rows"]:
    return -jnp.sum(times(*softmax(logits)), axis=-1)


@_entropy.defjvp
def _entropy_differential(primals: Any, tangents: Any) -> tuple[Array, Array]:
    p, log_p = softmax(*primals)
    value = -jnp.sum(times(p, log_p), axis=-1)
    slope = -times(p, log_p + value[..., None])
    return value, jnp.sum(slope * tangents[0], axis=-1)


def softmax(
    logits: Float[Array, "*rows V"],
) -> tuple[Float32[Array, "*rows V"], Float32[Array, "*rows V"]]:
    """Probabilities and their logarithms."""
    logprobs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return jnp.exp(logprobs), logprobs


def times(
    probabilities: Float32[Array, "*rows V"], values: Float32[Array, "*rows V"]
) -> Float32[Array, "*rows V"]:
    """The product, with 0 · ±∞ = 0."""
    return jnp.where(probabilities > 0, probabilities * values, 0.0)


def log_ratio(
    logprobs: Float[Array, "B T"],
    *,
    old_logprobs: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
) -> Float32[Array, "B T"]:
    """Difference log p − sg(log p_old), nats; 0 where the mask is False."""
    old = jax.lax.stop_gradient(select(old_logprobs, mask))
    return select(logprobs, mask) - old


def importance_ratio(log_ratio: Float[Array, "*axes"]) -> Float32[Array, "*axes"]:
    """Ratio exp(clip(log ratio, ±20)): never infinite, no gradient past the limit."""
    limit = _LOG_RATIO_LIMIT
    return jnp.exp(jnp.clip(log_ratio.astype(jnp.float32), -limit, limit))


def truncated_importance_weights(
    logprobs: Float[Array, "B T"],
    *,
    old_logprobs: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    cap: float = 2.0,
) -> Float32[Array, "B T"]:
    """Token weights that correct for samples drawn from other weights or numerics.

    w_t = sg(min(exp(clip(log p − log p_old, ±20)), C)). Exactly 1 where both agree,
    and under the mask.

    Pass them as `weights` to `feedback_distillation_loss` when the samples come from
    older weights, or to `grpo_loss` when the sampler's numerics differ from the
    trainer's; then `logprobs` are the trainer's *before* the update.

    Args:
      logprobs: log p(token) in nats under the policy being trained.
      old_logprobs: log p(token) in nats as the sampler recorded it, of the whole
        vocabulary at the same temperature, before top-k and top-p.
      mask: True for scored tokens.
      cap: C, above which a weight is cut; positive.

    Raises:
      ConfigError: the cap is not positive.

    Reference: Ionides, "Truncated importance sampling" (2008).
    """
    require("cap", cap, Number(above=0), remedy="2.0 is usual")
    ratio = importance_ratio(log_ratio(logprobs, old_logprobs=old_logprobs, mask=mask))
    return jax.lax.stop_gradient(jnp.minimum(ratio, cap))
