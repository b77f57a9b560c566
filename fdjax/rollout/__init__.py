"""Where the two worlds meet: sampling, verification, feedback, batches."""

from fdjax.rollout.batch import (
    DistillationBatch,
    PolicyBatch,
    SupervisedBatch,
    distillation_batch,
    fit_feedback,
    policy_batch,
    supervised_batch,
)
from fdjax.rollout.engine import Rollout, RolloutEngine
from fdjax.rollout.reward import verdict_rewards

__all__ = [
    "DistillationBatch",
    "PolicyBatch",
    "Rollout",
    "RolloutEngine",
    "SupervisedBatch",
    "distillation_batch",
    "fit_feedback",
    "policy_batch",
    "supervised_batch",
    "verdict_rewards",
]
