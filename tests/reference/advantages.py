"""Group-relative advantages in float64, one group at a time."""

import statistics

import numpy as np


def _by_group(rewards, mask, rule):
    advantages = np.zeros(rewards.shape, np.float64)
    for p in range(rewards.shape[0]):
        members = [g for g in range(rewards.shape[1]) if mask[p, g]]
        values = [float(rewards[p, g]) for g in members]
        for position, g in enumerate(members):
            advantages[p, g] = rule(values, position) if len(set(values)) > 1 else 0.0
    return advantages


def centred(rewards, mask):
    """R − mean of the known."""
    return _by_group(rewards, mask, lambda r, i: r[i] - statistics.fmean(r))


def zscore(rewards, mask):
    """(R − mean) / (population std + 1e-4)."""
    return _by_group(
        rewards,
        mask,
        lambda r, i: (r[i] - statistics.fmean(r)) / (statistics.pstdev(r) + 1e-4),
    )


def leave_one_out(rewards, mask):
    """R − mean of the other known."""
    return _by_group(
        rewards, mask, lambda r, i: r[i] - statistics.fmean(r[:i] + r[i + 1 :])
    )
