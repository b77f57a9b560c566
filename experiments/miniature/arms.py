"""The training of each arm: warm start, GRPO, FD, and SFT on the same references."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from experiments.miniature.config import (
    ComparisonConfig,
    DivergenceName,
    PolicyGradientConfig,
)
from experiments.miniature.dataset import Row, plain_rows
from experiments.miniature.materials import Materials
from fdjax.checkpoint import Retention
from fdjax.errors import ConfigError
from fdjax.ops import Divergence, forward_kl, generalized_jsd, reverse_kl
from fdjax.rollout import Pipeline
from fdjax.run.attempts import AttemptLog
from fdjax.sharding import batch_parts
from fdjax.train import (
    FD,
    GRPO,
    SFT,
    AlternatingSource,
    BaseTeacher,
    CheckpointsConfig,
    Clipped,
    EMATeacher,
    Guards,
    GuardsConfig,
    LogprobGap,
    OptimizerConfig,
    Phase,
    RolloutSource,
    Source,
    SupervisedSource,
    Teacher,
    Term,
    TrainState,
    init_state,
    make_alarms,
    make_objective,
    make_optimizer,
    make_train_step,
    needs_of,
    restart,
    train,
)

__all__ = ["Trainer"]

_SHOWN = {"train/loss": "loss", "reward/mean": "reward", "rollout/entropy": "entropy"}
"""Metrics beside a progress bar; of an arm with rewards, those of the attempts."""
_ATTEMPTS_PER_UPDATE = "rollout.problems × rollout.group_size / rollout.updates"


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains arms; one that was finished before is read from its checkpoints.

    Raises:
      ConfigError: a phase cannot be built from the settings and the data.
    """

    materials: Materials
    phases: dict[str, Phase] = field(init=False, repr=False)
    """By name. All are built with the trainer, so that a setting of the last is refused
    before the first is trained."""

    def __post_init__(self) -> None:
        config = self._config
        self._require_even(config.warm_start.batch_size, "warm_start.batch_size")
        self._require_even(config.rollout.batch_size, _ATTEMPTS_PER_UPDATE)
        phases = (
            self._warm_start(),
            self._reinforce("grpo", config.grpo),
            self._distill(),
            self._reinforce(
                "fd_then_grpo", config.fd_then_grpo, skip=config.rollout.handover
            ),
            self._control(),
        )
        object.__setattr__(self, "phases", {phase.name: phase for phase in phases})

    def warm_start(self) -> Any:
        """The parameters after SFT."""
        made = self.materials
        state = init_state(
            made.model,
            make_optimizer(self._config.warm_start.optimizer),
            made.context.mesh,
            made.context.key(0),
        )
        return self._train(self.phases["sft"], state).params

    def arms(self, warm: Any) -> dict[str, Any]:
        """Parameters after each arm's budget, all from one warm start."""
        config, phases, begin = self._config, self.phases, self._begin
        grpo = self._train(phases["grpo"], begin(warm, config.grpo.optimizer))
        until_handover = replace(phases["fd"], steps=config.rollout.handover)
        fd = self._train(
            until_handover, begin(warm, config.fd.optimizer, self._teacher)
        )
        # A copy: training on donates the state.
        early = jax.tree.map(jnp.copy, fd.params)
        fd = self._train(phases["fd"], fd)
        both = self._train(
            phases["fd_then_grpo"], begin(early, config.fd_then_grpo.optimizer)
        )
        control = self._train(phases["sft_references"], begin(warm, config.control))
        return {
            "grpo": grpo.params,
            "fd": fd.params,
            "fd_then_grpo": both.params,
            "sft_references": control.params,
        }

    def _warm_start(self) -> Phase:
        """SFT with and without feedback in the prompt."""
        config, made = self._config.warm_start, self.materials
        rows = ((made.plain, made.prompt_width), (made.informed, made.teacher_width))
        plain, informed = (
            self._supervised(rows, width, config.batch_size, "warm_start.batch_size")
            for rows, width in rows
        )
        return Phase(
            name="sft",
            steps=config.steps,
            source=AlternatingSource(plain, informed, share=config.feedback_share),
            train_step=self._step(SFT(), config.optimizer),
            checkpoints=CheckpointsConfig(every=300),
            log_every=20,
        )

    def _reinforce(
        self, arm: str, config: PolicyGradientConfig, skip: int = 0
    ) -> Phase:
        """GRPO for the rest of the budget, on the theorems that are left in it."""
        term = GRPO(surrogate=Clipped(low=config.clip_low, high=config.clip_high))
        source = self._rollouts(arm, term)
        source.skip(skip)
        rollout = self._config.rollout
        step = self._step(term, config.optimizer, rollout.temperature)
        return self._phase(arm, rollout.steps - skip, source, step)

    def _distill(self) -> Phase:
        """Feedback Distillation."""
        source = self._rollouts("fd", self._fd)
        # On resume FD→GRPO begins from the handover, however far FD has gone.
        config = self._config.rollout
        kept = (config.handover,)
        return self._phase("fd", config.steps, source, self._fd_step, kept)

    @functools.cached_property
    def _fd_step(self) -> Callable[[TrainState, Any], Any]:
        config = self._config
        return self._step(
            self._fd, config.fd.optimizer, config.rollout.temperature, self._teacher
        )

    @property
    def _fd(self) -> FD:
        config = self._config.fd
        return FD(
            divergence=_divergence(config.divergence),
            score=config.score,
            # The second update of an iteration is a step stale and, unlike by default,
            # not weighed for it: all figures in docs/quickstart.md are of this setting.
            importance_cap=None,
        )

    @property
    def _teacher(self) -> Teacher:
        rate = self._config.fd.teacher_rate
        return EMATeacher(rate=rate) if rate else BaseTeacher()

    def _rollouts(self, arm: str, term: Term) -> RolloutSource:
        return RolloutSource(
            self.materials.splits["pool"],
            replace(self._pipeline, phase=arm),
            needs=needs_of((term,)),
            teacher_width=self.materials.teacher_width,
            gap=self._gap,
            **self._budget,
        )

    def _control(self) -> Phase:
        """SFT on the references behind the hints: as many updates and rows as FD."""
        config, made = self._config.rollout, self.materials
        rows = plain_rows(made.splits["pool"], withheld=())
        source = self._supervised(
            rows, made.prompt_width, config.batch_size, _ATTEMPTS_PER_UPDATE
        )
        step = self._step(SFT(), self._config.control)
        return self._phase(
            "sft_references", config.steps * config.updates, source, step
        )

    # Parts of the above

    @property
    def _config(self) -> ComparisonConfig:
        return self.materials.context.config

    @functools.cached_property
    def _pipeline(self) -> Pipeline:
        return self.materials.pipeline(self.materials.prompt_width)

    @functools.cached_property
    def _gap(self) -> LogprobGap:
        return LogprobGap(self.materials.model)

    @property
    def _budget(self) -> dict[str, Any]:
        config = self._config.rollout
        return {
            "problems_per_step": config.problems,
            "group_size": config.group_size,
            "updates_per_rollout": config.updates,
            "seed": self._config.seed,
        }

    def _require_even(self, batch_size: int, setting: str) -> None:
        """Refuses a batch that the devices cannot share."""
        parts = batch_parts(self.materials.context.mesh)
        if batch_size % parts:
            raise ConfigError(
                f"expected {setting} to be divisible by the {parts} devices, got "
                f"{batch_size}"
            )

    def _supervised(
        self, rows: list[Row], prompt_width: int, batch_size: int, setting: str
    ) -> SupervisedSource:
        """Rows for SFT; `setting` is what `batch_size` comes from."""
        fitting = self.materials.fitting(rows, prompt_width)
        if len(fitting) < batch_size:
            raise ConfigError(
                f"expected {setting} of at most {len(fitting)}, the rows for SFT whose "
                "proof has at most rollout.max_new_tokens = "
                f"{self._config.rollout.max_new_tokens} tokens, got {batch_size}: "
                "lower it, allow more tokens, or make more data"
            )
        return SupervisedSource(
            fitting,
            self.materials.tokenizer,
            batch_size=batch_size,
            seed=self._config.seed,
            prompt_width=prompt_width,
            response_width=self._config.rollout.max_new_tokens,
        )

    def _begin(
        self, params: Any, optimizer: OptimizerConfig, teacher: Teacher | None = None
    ) -> TrainState:
        # One key for all arms: they start from the same attempts at the same theorems.
        context = self.materials.context
        return restart(
            params,
            self.materials.model,
            make_optimizer(optimizer),
            context.mesh,
            context.key(1),
            teacher=teacher,
        )

    def _step(
        self,
        term: Term,
        optimizer: OptimizerConfig,
        temperature: float = 1.0,
        teacher: Teacher | None = None,
    ) -> Callable[[TrainState, Any], Any]:
        return make_train_step(
            self.materials.model,
            make_objective(self.materials.model, (term,), temperature=temperature),
            make_optimizer(optimizer),
            self.materials.context.mesh,
            teacher=teacher,
        )

    def _phase(
        self,
        name: str,
        steps: int,
        source: Source,
        step: Callable[[TrainState, Any], Any],
        kept: tuple[int, ...] = (),
    ) -> Phase:
        return Phase(
            name=name,
            steps=steps,
            source=source,
            train_step=step,
            checkpoints=CheckpointsConfig(every=4, keep=Retention(steps=kept)),
        )

    def _train(self, phase: Phase, state: TrainState) -> TrainState:
        context = self.materials.context
        log = AttemptLog(
            model=self.materials.model,
            tokenizer=self.materials.tokenizer,
            samples=context.samples,
            temperature=self._config.rollout.temperature,
        )
        # Not `context.task`: the loop itself saves before it stops.
        with (
            context.timed(phase.name),
            context.display.task(f"Train {phase.name}", phase.steps) as progress,
        ):

            def on_step(done: int, metrics: dict[str, float]) -> None:
                context.saved(phase.name)
                values = [
                    f"{label} {metrics[key]:.2f}"
                    for key, label in _SHOWN.items()
                    if key in metrics
                ]
                progress(done, "  ".join(values[-2:]))

            trained = train(
                phase,
                state,
                mesh=context.mesh,
                directory=context.folder / "checkpoints" / phase.name,
                writer=context.writer,
                samples=context.samples,
                stop=context.stop,
                guards=Guards(
                    alarms=make_alarms(GuardsConfig(), "float32"),
                    events=context.events,
                    folder=context.folder,
                    dumps=GuardsConfig().dumps,
                ),
                run=context.run,
                on_data=functools.partial(log.write, phase.name),
                on_step=on_step,
            )
        context.journal.passed(phase.name)
        return trained


def _divergence(name: DivergenceName) -> Divergence:
    """What `DistillationConfig.divergence` names."""
    match name:
        case "forward_kl":
            return forward_kl
        case "reverse_kl":
            return reverse_kl
        case "jsd":
            return functools.partial(generalized_jsd, alpha=0.5)
