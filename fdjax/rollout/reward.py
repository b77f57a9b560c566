"""Verdict to reward, and to whether there is a reward at all."""

from collections.abc import Sequence

import numpy as np

from fdjax.lean import Verdict

__all__ = ["verdict_rewards"]


def verdict_rewards(verdicts: Sequence[Verdict]) -> tuple[np.ndarray, np.ndarray]:
    """1 for a verified proof, 0 for one that Lean decided against.

    Where the checker failed or the statement itself is broken, the reward is missing,
    not zero: the sample leaves group statistics, loss and normalizer.

    Returns:
      Rewards [B] float32 (0 where missing) and whether each is known [B] bool.
    """
    known = np.array([not v.missing for v in verdicts], bool)
    rewards = np.array([v.verified for v in verdicts], np.float32)
    return rewards, known
