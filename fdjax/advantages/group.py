"""Advantages of a sample relative to the other samples of the same problem.

A reward under a False mask is *missing* (its verifier crashed), and so is one that is
no finite number: it has no part in the statistics of its group, and its own advantage
is 0. A group whose known rewards are all equal, or that knows fewer than two, gives
exactly 0 and is not live.

Every function returns the advantages and two metrics: advantages/live_groups (share of
groups with a known reward that carry a gradient) and advantages/known_rewards (share of
samples whose reward is known).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from fdjax.errors import ConfigError
from fdjax.ops import select
from fdjax.records import Mean, Metrics

__all__ = ["centred", "leave_one_out", "zscore"]

_EPSILON = 1e-4


class _Groups(NamedTuple):
    """Statistics of each group over its known rewards."""

    deviations: Float32[Array, "P G"]
    """R − mean; 0 where missing and in groups that are not live."""
    known: Float32[Array, "P 1"]
    """Known rewards."""
    metrics: Metrics


def _groups(rewards: Float[Array, "P G"], mask: Bool[Array, "P G"]) -> _Groups:
    if rewards.shape != mask.shape or mask.dtype != jnp.bool_:
        raise ConfigError(
            f"expected one boolean of the mask for each reward, shape {rewards.shape}, "
            f"got {mask.dtype}{list(mask.shape)}: group both as [problems, samples]"
        )
    if rewards.ndim != 2 or not rewards.shape[1]:
        raise ConfigError(
            f"expected groups of at least one sample, got rewards of shape "
            f"{rewards.shape}: group them as [problems, samples]"
        )
    mask = mask & jnp.isfinite(rewards)
    known = select(rewards, mask)
    count = jnp.sum(mask, axis=-1, keepdims=True, dtype=jnp.float32)
    mean = jnp.sum(known, axis=-1, keepdims=True) / jnp.maximum(count, 1.0)
    # Equality is asked of the rewards: their rounded mean need not equal any of them.
    highest = jnp.max(jnp.where(mask, known, -jnp.inf), axis=-1, keepdims=True)
    lowest = jnp.min(jnp.where(mask, known, jnp.inf), axis=-1, keepdims=True)
    live = highest > lowest
    judged = count > 0
    metrics = {
        "advantages/live_groups": Mean(
            jnp.sum(live, dtype=jnp.float32), jnp.sum(judged, dtype=jnp.float32)
        ),
        "advantages/known_rewards": Mean(
            jnp.sum(count), jnp.asarray(mask.size, jnp.float32)
        ),
    }
    return _Groups(jnp.where(mask & live, known - mean, 0.0), count, metrics)


def centred(
    rewards: Float[Array, "P G"], mask: Bool[Array, "P G"]
) -> tuple[Float32[Array, "P G"], Metrics]:
    """R − mean over the group: no preference for problems of any difficulty.

    Args:
      rewards: of the G samples of each of P problems.
      mask: True where the reward is known.

    Returns:
      Advantages, and the metrics of the module docstring.

    Raises:
      ConfigError: shapes do not agree, or a group has no samples.

    Reference: Dr. GRPO, arXiv:2503.20783.
    """
    groups = _groups(rewards, mask)
    return groups.deviations, groups.metrics


def zscore(
    rewards: Float[Array, "P G"], mask: Bool[Array, "P G"]
) -> tuple[Float32[Array, "P G"], Metrics]:
    """(R − mean) / (std + 1e-4) over the group, with the population's std.

    Args:
      rewards: of the G samples of each of P problems.
      mask: True where the reward is known.

    Returns:
      Advantages, and the metrics of the module docstring.

    Raises:
      ConfigError: shapes do not agree, or a group has no samples.

    Reference: arXiv:2402.03300, section 4.1.2.
    Differs from the paper: 1e-4 is added to the standard deviation, which divides by
    the count (some implementations divide by the count less one).
    """
    groups = _groups(rewards, mask)
    squares = jnp.sum(jnp.square(groups.deviations), axis=-1, keepdims=True)
    deviation = jnp.sqrt(squares / jnp.maximum(groups.known, 1.0))
    return groups.deviations / (deviation + _EPSILON), groups.metrics


def leave_one_out(
    rewards: Float[Array, "P G"], mask: Bool[Array, "P G"]
) -> tuple[Float32[Array, "P G"], Metrics]:
    """R_i − mean of the other known rewards: an unbiased baseline for each sample.

    Equal to n/(n−1) (R_i − mean) with n known rewards.

    Args:
      rewards: of the G samples of each of P problems.
      mask: True where the reward is known.

    Returns:
      Advantages, and the metrics of the module docstring.

    Raises:
      ConfigError: shapes do not agree, or a group has no samples.

    Reference: RLOO, arXiv:2402.14740.
    """
    groups = _groups(rewards, mask)
    scale = groups.known / jnp.maximum(groups.known - 1.0, 1.0)
    return groups.deviations * scale, groups.metrics
