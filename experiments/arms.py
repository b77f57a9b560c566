"""The training of each arm: warm start, GRPO, FD, and SFT on the same references."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from experiments.attempts import AttemptLog
from experiments.config import ComparisonConfig
from experiments.dataset import Row, plain_rows
from experiments.materials import Materials
from fdjax.advantages import zscore
from fdjax.ops import forward_kl, generalized_jsd, reverse_kl
from fdjax.rollout import RolloutEngine
from fdjax.train import (
    AlternatingSource,
    DistillationSource,
    Objective,
    OptimizerConfig,
    Phase,
    PolicySource,
    Source,
    SupervisedSource,
    TrainState,
    fd_objective,
    grpo_objective,
    init_state,
    make_optimizer,
    make_train_step,
    restart,
    sft_objective,
    train,
)

__all__ = ["Trainer"]

_DIVERGENCES = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": functools.partial(generalized_jsd, alpha=0.5),
}

_SHOWN = {"train/loss": "loss", "reward/mean": "reward", "policy/entropy": "entropy"}
"""Metrics beside a progress bar; of an arm with rewards, those of the attempts."""


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains arms; one that was finished before is read from its checkpoints."""

    materials: Materials

    def warm_start(self) -> Any:
        """SFT with and without feedback in the prompt; the parameters."""
        config, optimizer = self._config.warm_start, self._config.warm_start.optimizer
        made = self.materials
        rows = ((made.plain, made.prompt_width), (made.informed, made.teacher_width))
        plain, informed = (
            self._supervised(rows, width, config.batch_size) for rows, width in rows
        )
        state = init_state(
            made.model,
            make_optimizer(optimizer),
            made.context.mesh,
            made.context.key(0),
        )
        phase = Phase(
            name="sft",
            steps=config.steps,
            source=AlternatingSource(plain, informed, share=config.feedback_share),
            train_step=self._step(sft_objective(made.model), optimizer),
            checkpoint_every=300,
            log_every=20,
        )
        return self._train(phase, state).params

    def arms(self, warm: Any) -> dict[str, Any]:
        """Parameters after each arm's budget, all from one warm start."""
        config = self._config
        steps, handover = config.rollout.steps, config.rollout.handover
        grpo = self._reinforce("grpo", self._begin(warm, config.grpo.optimizer))
        fd = self._distill(
            self._begin(warm, config.fd.optimizer, teacher=True), handover
        )
        # A copy: training on donates the state.
        early = jax.tree.map(jnp.copy, fd.params)
        fd = self._distill(fd, steps)
        both = self._reinforce(
            "fd_then_grpo", self._begin(early, config.grpo.optimizer), skip=handover
        )
        return {
            "grpo": grpo.params,
            "fd": fd.params,
            "fd_then_grpo": both.params,
            "sft_references": self._control(warm).params,
        }

    def _reinforce(self, arm: str, state: TrainState, skip: int = 0) -> TrainState:
        """GRPO for the rest of the budget, on the theorems that are left in it."""
        source = PolicySource(
            self.materials.splits["pool"],
            self._engine,
            advantage=zscore,
            **self._budget,
        )
        source.skip(skip)
        steps = self._config.rollout.steps - skip
        return self._train(self._phase(arm, steps, source, self._grpo_step), state)

    @functools.cached_property
    def _grpo_step(self) -> Callable[[TrainState, Any], Any]:
        config = self._config.grpo
        objective = grpo_objective(
            self.materials.model,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            temperature=self._config.rollout.temperature,
        )
        return self._step(objective, config.optimizer)

    def _distill(self, state: TrainState, steps: int) -> TrainState:
        """Feedback Distillation up to iteration `steps`."""
        source = DistillationSource(
            self.materials.splits["pool"],
            self._engine,
            teacher_width=self.materials.teacher_width,
            score=self._config.fd.score,
            **self._budget,
        )
        # On resume FD→GRPO begins from the handover, however far FD has gone.
        handover = self._config.rollout.handover
        phase = self._phase("fd", steps, source, self._fd_step, keep_steps=(handover,))
        return self._train(phase, state)

    @functools.cached_property
    def _fd_step(self) -> Callable[[TrainState, Any], Any]:
        config = self._config.fd
        objective = fd_objective(
            self.materials.model,
            divergence=_DIVERGENCES[config.divergence],
            temperature=self._config.rollout.temperature,
        )
        return self._step(objective, config.optimizer, config.teacher_rate)

    def _control(self, params: Any) -> TrainState:
        """SFT on the references behind the hints: as many updates and rows as FD."""
        config, made = self._config.rollout, self.materials
        rows = plain_rows(made.splits["pool"], withheld=())
        batch_size = config.problems * config.group_size // config.updates
        source = self._supervised(rows, made.prompt_width, batch_size)
        optimizer = self._config.control
        step = self._step(sft_objective(made.model), optimizer)
        phase = self._phase(
            "sft_references", config.steps * config.updates, source, step
        )
        return self._train(phase, self._begin(params, optimizer))

    # Parts of the above

    @property
    def _config(self) -> ComparisonConfig:
        return self.materials.context.config

    @functools.cached_property
    def _engine(self) -> RolloutEngine:
        return self.materials.engine(self.materials.prompt_width)

    @property
    def _budget(self) -> dict[str, int]:
        config = self._config.rollout
        return {
            "problems_per_step": config.problems,
            "group_size": config.group_size,
            "updates_per_rollout": config.updates,
            "seed": self._config.seed,
        }

    def _supervised(
        self, rows: list[Row], prompt_width: int, batch_size: int
    ) -> SupervisedSource:
        return SupervisedSource(
            self.materials.fitting(rows, prompt_width),
            self.materials.tokenizer,
            batch_size=batch_size,
            seed=self._config.seed,
            prompt_width=prompt_width,
            response_width=self._config.rollout.max_new_tokens,
        )

    def _begin(
        self, params: Any, optimizer: OptimizerConfig, *, teacher: bool = False
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
        self, objective: Objective, optimizer: OptimizerConfig, teacher_rate: float = 0
    ) -> Callable[[TrainState, Any], Any]:
        return make_train_step(
            self.materials.model,
            objective,
            make_optimizer(optimizer),
            self.materials.context.mesh,
            teacher_rate=teacher_rate,
        )

    def _phase(
        self,
        name: str,
        steps: int,
        source: Source,
        step: Callable[[TrainState, Any], Any],
        keep_steps: tuple[int, ...] = (),
    ) -> Phase:
        return Phase(
            name=name,
            steps=steps,
            source=source,
            train_step=step,
            checkpoint_every=4,
            keep_steps=keep_steps,
        )

    def _train(self, phase: Phase, state: TrainState) -> TrainState:
        context = self.materials.context
        log = AttemptLog(
            model=self.materials.model,
            tokenizer=self.materials.tokenizer,
            samples=context.samples,
        )
        # Not `context.task`: the loop itself saves before it stops.
        with (
            context.timed(phase.name),
            context.display.task(f"Train {phase.name}", phase.steps) as progress,
        ):

            def on_step(done: int, metrics: dict[str, float]) -> None:
                values = [
                    f"{label} {metrics[key]:.2f}"
                    for key, label in _SHOWN.items()
                    if key in metrics
                ]
                progress(done, "  ".join(values[-2:]))

            return train(
                phase,
                state,
                mesh=context.mesh,
                directory=context.folder / "checkpoints" / phase.name,
                writer=context.writer,
                samples=context.samples,
                stop=context.stop,
                run=context.run,
                resume="whole" if context.config.resume == "whole" else "newest",
                on_data=functools.partial(log.write, phase.name),
                on_step=on_step,
            )
