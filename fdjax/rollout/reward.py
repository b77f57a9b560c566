"""Verdict to reward, and to whether there is a reward at all."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32

from fdjax.lean import Verdict

__all__ = ["verdict_rewards"]


def verdict_rewards(
    verdicts: Sequence[Verdict],
) -> tuple[Float32[np.ndarray, " B"], Bool[np.ndarray, " B"]]:
    """1 for a verified proof, 0 for one that Lean decided against.

    Where the checker failed or the statement itself is broken, the reward is missing,
    not zero: the sample leaves group statistics, loss and normalizer.

    Returns:
      Rewards, 0 where missing, and whether each is known.
    """
    known = np.array([not v.missing for v in verdicts], bool)
    rewards = np.array([v.verified for v in verdicts], np.float32)
    return rewards, known
