"""Training: state, objectives, the sharded step and the loop around it."""

from fdjax.train.interrupt import StoppedError, StopRequest, stop_on_signal
from fdjax.train.loop import Phase, train
from fdjax.train.objectives import (
    Objective,
    distillation_hidden,
    fd_objective,
    grpo_objective,
    response_hidden,
    sft_objective,
)
from fdjax.train.optimizer import OptimizerConfig, make_optimizer
from fdjax.train.resume import ResumeFrom, check_origin
from fdjax.train.sources import (
    AlternatingSource,
    DistillationSource,
    PolicySource,
    Source,
    StepData,
    SupervisedSource,
)
from fdjax.train.state import TrainState, init_state, restart, state_shardings
from fdjax.train.step import make_train_step
from fdjax.train.teacher import init_teacher, update_teacher
from fdjax.train.window import IdleError

__all__ = [
    "AlternatingSource",
    "DistillationSource",
    "IdleError",
    "Objective",
    "OptimizerConfig",
    "Phase",
    "PolicySource",
    "ResumeFrom",
    "Source",
    "StepData",
    "StopRequest",
    "StoppedError",
    "SupervisedSource",
    "TrainState",
    "check_origin",
    "distillation_hidden",
    "fd_objective",
    "grpo_objective",
    "init_state",
    "init_teacher",
    "make_optimizer",
    "make_train_step",
    "response_hidden",
    "restart",
    "sft_objective",
    "state_shardings",
    "stop_on_signal",
    "train",
    "update_teacher",
]
