"""Where the two worlds meet: sampling, verification, feedback, batches."""

from fdjax.rollout.arrays import Batch, TeacherPrompts
from fdjax.rollout.batch import fit_feedback, rollout_batch, supervised_batch
from fdjax.rollout.codec import decode_group, encode_group
from fdjax.rollout.event_loop import EventLoop
from fdjax.rollout.journal import Journal
from fdjax.rollout.pending import Pending
from fdjax.rollout.pipeline import OpensTools, Pipeline
from fdjax.rollout.policy_chat import PolicyChat
from fdjax.rollout.trajectory import Responses, Rollout, Trajectory

__all__ = [
    "Batch",
    "EventLoop",
    "Journal",
    "OpensTools",
    "Pending",
    "Pipeline",
    "PolicyChat",
    "Responses",
    "Rollout",
    "TeacherPrompts",
    "Trajectory",
    "decode_group",
    "encode_group",
    "fit_feedback",
    "rollout_batch",
    "supervised_batch",
]
