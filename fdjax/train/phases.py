"""A run: phases in a row, each an algorithm with its optimizer and length."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Key

from fdjax.checkpoint import Exports
from fdjax.errors import ConfigError
from fdjax.metrics import MetricsWriter, SampleWriter
from fdjax.model import LoRA, Model
from fdjax.objects import Place
from fdjax.ranges import FLAG, Whole, require, require_fields
from fdjax.records import Metrics
from fdjax.train.checkpoints import CheckpointsConfig
from fdjax.train.guards.diagnosis import make_diagnosis
from fdjax.train.guards.guards import UNGUARDED, Guards
from fdjax.train.interrupt import StopRequest
from fdjax.train.loop import Phase, train
from fdjax.train.objectives import Objective, make_objective
from fdjax.train.optimizer import OptimizerConfig, make_optimizer
from fdjax.train.plateau import Plateau
from fdjax.train.profile import NO_PROFILE, Profile
from fdjax.train.sources import Source, StepData
from fdjax.train.state import TrainState, hand_over, restart
from fdjax.train.step import make_train_step
from fdjax.train.teacher import BaseTeacher, LiveTeacher, Teacher
from fdjax.train.terms import Needs, Term, needs_of

__all__ = ["PhaseConfig", "check_phases", "phase_step", "train_phases"]


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """One phase of a run, as data."""

    name: str
    """As it is called in logs; the folder of its checkpoints."""
    terms: tuple[Term, ...]
    """What it minimises: `(FD(),)`, `(GRPO(),)`, `mixture(...)`, `(SFT(),)`."""
    steps: int
    """Iterations, at most."""
    until: Plateau | None = None
    """Hands over earlier, once this metric has stopped rising."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    teacher: Teacher = field(default_factory=BaseTeacher)
    """Where the teacher's weights come from, if a term reads one."""
    keep_moments: bool = False
    """Whether Adam goes on with the moments of the phase before."""
    keep_teacher: bool = False
    """Whether the teacher's weights go on from the phase before; else the teacher
    begins as the policy does."""
    microbatches: int = 1
    """Parts that a batch is cut into to save memory."""
    widths: int | None = None
    """At which a microbatch can be computed (`make_train_step`): 4 by default where
    there are several, so that short attempts do not cost what long ones do."""
    log_every: int = 1
    """Iterations whose metrics are averaged into one row."""
    max_idle: int = 5
    """Iterations in a row without an optimizer step after which the run stops."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            steps=Whole(1),
            keep_moments=FLAG,
            keep_teacher=FLAG,
            microbatches=Whole(1),
            log_every=Whole(1),
            max_idle=Whole(1),
        )
        if self.widths is not None:
            require("PhaseConfig.widths", self.widths, Whole(1))
        if not self.name or set(self.name) & set("/\\") or self.name.startswith("."):
            raise ConfigError(
                "expected PhaseConfig.name to be the name of a folder, got "
                f"{self.name!r}"
            )
        if not isinstance(self.terms, tuple):
            raise ConfigError(
                f"expected PhaseConfig.terms to be a tuple, got {self.terms!r}"
            )
        needs_of(self.terms)

    @property
    def needs(self) -> Needs:
        """What its terms read."""
        return needs_of(self.terms)

    @property
    def held_teacher(self) -> Teacher | None:
        """The teacher, if a term reads it."""
        return self.teacher if self.needs.teacher else None

    @property
    def holds_weights(self) -> bool:
        """Whether the state holds weights of a teacher."""
        return not isinstance(self.held_teacher, LiveTeacher | None)


def train_phases(
    phases: Sequence[PhaseConfig],
    params: Any,
    *,
    model: Model,
    mesh: Mesh,
    key: Key[Array, ""],
    source: Callable[[PhaseConfig], Source],
    directory: Place,
    writer: MetricsWriter,
    samples: SampleWriter,
    stop: StopRequest,
    lora: LoRA | None = None,
    guards: Guards = UNGUARDED,
    profile: Profile = NO_PROFILE,
    run: str | None = None,
    checkpoints: CheckpointsConfig | None = None,
    exports: Exports | None = None,
    keep: Callable[[bool], bool] = lambda must: True,
    on_data: Callable[[str, int, TrainState, StepData], None] = lambda *_: None,
    on_step: Callable[[str, int, dict[str, float]], None] = lambda *_: None,
) -> TrainState:
    """Runs phases one after the other, going on where an earlier call stopped.

    Each begins with the policy that the one before ended with: FD→GRPO is a phase of
    `FD` and one of `GRPO`, expert iteration one of `SFT` on attempts. All are built
    before the first is trained, so that a setting of the last is refused at once. A
    phase that was finished is read from its last checkpoint.

    Args:
      phases: of different names.
      params: the policy to begin with, float32, of whatever origin; copied. With
        `lora` it is the base, which all states share.
      model: of policy and teacher.
      mesh: over which batches are sharded.
      key: typed PRNG key of the run; phase i has `fold_in(key, i)`.
      source: makes the data of a phase, such as a `RolloutSource` with its `needs`.
      directory: in which each phase has a folder of checkpoints.
      writer: receives the rows of metrics; the arm is the phase's name.
      samples: see `train`.
      stop: asked between iterations.
      lora: adapters that the phases train, one after the other; None for all
        parameters.
      guards: see `train`.
      profile: see `train`.
      run: identity of the run, kept in its checkpoints.
      checkpoints: when the state is saved, and what stays; see `CheckpointsConfig`.
      exports: see `train`.
      keep: see `train`.
      on_data: called with (phase, iteration, state, data) before the optimizer steps.
      on_step: called with (phase, iterations done, latest metrics).

    Returns:
      The state after the last phase.

    Raises:
      ConfigError: there are no phases, two of one name, or one keeps what the phase
        before does not have.
      StoppedError: `stop` was requested; the state was saved first.
      IdleError, AlarmError, CheckpointError, StoreError: see `train`.
    """
    check_phases(phases)
    kept = checkpoints or CheckpointsConfig()
    built = [_built(phase, model, mesh, source(phase), lora, kept) for phase in phases]
    state: TrainState | None = None
    for index, (phase, ready) in enumerate(zip(phases, built, strict=True)):
        optimizer = make_optimizer(phase.optimizer)
        phase_key = jax.random.fold_in(key, index)
        if state is None:
            state = restart(
                params,
                model,
                optimizer,
                mesh,
                phase_key,
                teacher=phase.held_teacher,
                lora=lora,
            )
        else:
            state = hand_over(
                state,
                model,
                optimizer,
                mesh,
                phase_key,
                teacher=phase.held_teacher,
                keep_moments=phase.keep_moments,
                keep_teacher=phase.keep_teacher,
                lora=lora,
            )
        state = train(
            ready,
            state,
            mesh=mesh,
            directory=directory / phase.name,
            writer=writer,
            samples=samples,
            stop=stop,
            guards=guards,
            profile=profile,
            run=run,
            exports=exports,
            keep=keep,
            on_data=partial(on_data, phase.name),
            on_step=partial(on_step, phase.name),
        )
    assert state is not None  # there are phases
    return state


def check_phases(phases: Sequence[PhaseConfig]) -> None:
    """Sees to it that each phase can follow the one before (`train_phases`).

    Raises:
      ConfigError: there are none, two have one name, or one keeps what the one before
        does not have.
    """
    names = [phase.name for phase in phases]
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            f"expected one or more phases of different names, got {names}: each has a "
            "folder of its own"
        )
    for before, phase in zip([None, *phases], phases, strict=False):
        if before is None and (phase.keep_moments or phase.keep_teacher):
            raise ConfigError(
                f"expected the first phase to keep nothing, got {phase.name} with "
                "keep_moments or keep_teacher: there is none before it"
            )
        if before is None or not phase.keep_teacher:
            continue
        if not (before.holds_weights and phase.holds_weights):
            lacking = phase if before.holds_weights else before
            raise ConfigError(
                f"expected {before.name} and {phase.name} to have teachers with "
                f"weights of their own, because {phase.name} keeps them, got none in "
                f"{lacking.name}"
            )


def phase_step(
    config: PhaseConfig,
    model: Model,
    objective: Objective,
    mesh: Mesh,
    lora: LoRA | None,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """The optimizer step of a phase, compiled when it is first called.

    Args:
      config: of the phase.
      model: of policy and teacher.
      objective: of the phase's terms.
      mesh: over which batches are sharded.
      lora: adapters that it trains, if not all parameters.
    """
    return make_train_step(
        model,
        objective,
        make_optimizer(config.optimizer),
        mesh,
        teacher=config.held_teacher,
        lora=lora,
        microbatches=config.microbatches,
        widths=config.widths,
    )


def _built(
    config: PhaseConfig,
    model: Model,
    mesh: Mesh,
    source: Source,
    lora: LoRA | None,
    checkpoints: CheckpointsConfig,
) -> Phase:
    """The phase that `train` runs; a bad setting is refused here.

    Args:
      config: of the phase.
      model: of policy and teacher.
      mesh: over which batches are sharded.
      source: of its data, with what `config.needs` says.
      lora: adapters that it trains, if not all parameters.
      checkpoints: when it is saved, and what stays.
    """
    objective = make_objective(model, config.terms)
    diagnose = make_diagnosis(
        objective, teacher=config.held_teacher, microbatches=config.microbatches
    )
    return Phase(
        name=config.name,
        steps=config.steps,
        source=source,
        train_step=phase_step(config, model, objective, mesh, lora),
        checkpoints=checkpoints,
        log_every=config.log_every,
        until=config.until,
        max_idle=config.max_idle,
        diagnose=diagnose,
    )
