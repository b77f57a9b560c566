"""Training: state, objectives, the sharded step and the loop around it."""

from fdjax.train.checkpoints import CheckpointsConfig
from fdjax.train.forward import response_hidden, teacher_hidden
from fdjax.train.guards import (
    Alarm,
    AlarmError,
    Guards,
    GuardsConfig,
    make_alarms,
    make_diagnosis,
    read_dump,
)
from fdjax.train.interrupt import StoppedError, StopRequest, stop_on_signal
from fdjax.train.logprob_gap import LogprobGap
from fdjax.train.loop import Phase, train
from fdjax.train.marginal import summed_distribution
from fdjax.train.objectives import Objective, make_objective
from fdjax.train.optimizer import OptimizerConfig, make_optimizer
from fdjax.train.phases import PhaseConfig, train_phases
from fdjax.train.plateau import Plateau
from fdjax.train.profile import Profile
from fdjax.train.resume import check_origin
from fdjax.train.rollout_source import RolloutSource
from fdjax.train.sources import (
    AlternatingSource,
    ResumableSource,
    Source,
    StepData,
    SupervisedSource,
)
from fdjax.train.state import (
    TrainState,
    hand_over,
    init_state,
    restart,
    state_shardings,
)
from fdjax.train.step import make_train_step
from fdjax.train.teacher import (
    BaseTeacher,
    EMATeacher,
    LiveTeacher,
    SyncedTeacher,
    Teacher,
    init_teacher,
    update_teacher,
)
from fdjax.train.terms import (
    CISPO,
    FD,
    GRPO,
    GSPO,
    SFT,
    Clipped,
    DualClip,
    Needs,
    ReferenceKL,
    SequenceTerm,
    Term,
    Tokens,
    TokenTerm,
    mixture,
    needs_of,
)
from fdjax.train.window import IdleError

__all__ = [
    "CISPO",
    "FD",
    "GRPO",
    "GSPO",
    "SFT",
    "Alarm",
    "AlarmError",
    "AlternatingSource",
    "BaseTeacher",
    "CheckpointsConfig",
    "Clipped",
    "DualClip",
    "EMATeacher",
    "Guards",
    "GuardsConfig",
    "IdleError",
    "LiveTeacher",
    "LogprobGap",
    "Needs",
    "Objective",
    "OptimizerConfig",
    "Phase",
    "PhaseConfig",
    "Plateau",
    "Profile",
    "ReferenceKL",
    "ResumableSource",
    "RolloutSource",
    "SequenceTerm",
    "Source",
    "StepData",
    "StopRequest",
    "StoppedError",
    "SupervisedSource",
    "SyncedTeacher",
    "Teacher",
    "Term",
    "TokenTerm",
    "Tokens",
    "TrainState",
    "check_origin",
    "hand_over",
    "init_state",
    "init_teacher",
    "make_alarms",
    "make_diagnosis",
    "make_objective",
    "make_optimizer",
    "make_train_step",
    "mixture",
    "needs_of",
    "read_dump",
    "response_hidden",
    "restart",
    "state_shardings",
    "stop_on_signal",
    "summed_distribution",
    "teacher_hidden",
    "train",
    "train_phases",
    "update_teacher",
]
