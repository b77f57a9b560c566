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
from fdjax.rollout.event_loop import EventLoop
from fdjax.rollout.pipeline import Pipeline
from fdjax.rollout.trajectory import Responses, Rollout, Trajectory, Turn

__all__ = [
    "DistillationBatch",
    "EventLoop",
    "Pipeline",
    "PolicyBatch",
    "Responses",
    "Rollout",
    "SupervisedBatch",
    "Trajectory",
    "Turn",
    "distillation_batch",
    "fit_feedback",
    "policy_batch",
    "supervised_batch",
]
