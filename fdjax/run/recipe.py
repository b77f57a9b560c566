"""A run from a pretrained policy: load, measure, train each arm, measure, save."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, cast

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fdjax.checkpoint import Pretrained, load_pretrained, save_pretrained
from fdjax.data.chat import prompt_tokens
from fdjax.data.packing import padded_width
from fdjax.data.tokenizer import pad_token
from fdjax.errors import ConfigError
from fdjax.rollout import EventLoop, Pipeline, Rollout, fit_feedback
from fdjax.run.attempts import AttemptLog
from fdjax.run.config import RunConfig
from fdjax.run.context import RunContext
from fdjax.run.memory import held_bytes
from fdjax.run.probe import probe
from fdjax.run.probes import ProbeRows, Reader
from fdjax.run.task import Arm, Stage, Task
from fdjax.sampling import SamplingConfig, make_generate
from fdjax.sharding import batch_parts
from fdjax.train import (
    BaseTeacher,
    Phase,
    RolloutSource,
    StepData,
    TrainState,
    make_objective,
    make_optimizer,
    make_train_step,
    needs_of,
    restart,
    train,
)

__all__ = ["Recipe", "load_recipe"]

_SHOWN = {"train/loss": "loss", "reward/mean": "reward", "rollout/entropy": "entropy"}
"""Metrics beside a progress bar; of an arm with rewards, those of the attempts."""
_GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A policy, a task, and the arms that learn it.

    Raises:
      ConfigError: a phase cannot be built from the settings and the problems.
    """

    context: RunContext[Any]
    task: Task
    arms: tuple[Arm, ...]
    policy: Pretrained
    tokenizer: PreTrainedTokenizerFast
    prompt_width: int
    """Tokens of the student's prompts."""
    loop: EventLoop = field(default_factory=EventLoop, repr=False)
    phases: dict[str, Phase] = field(init=False, repr=False)
    """By name. All are built with the recipe, so that a setting of the last is refused
    before the first is trained."""

    def __post_init__(self) -> None:
        rows, parts = self._config.attempts.batch_size, batch_parts(self.context.mesh)
        if rows % (parts * self._config.attempts.microbatches):
            raise ConfigError(
                f"expected attempts of an optimizer step, {rows}, to be divisible by "
                f"the {parts} devices that share them × microbatches = "
                f"{self._config.attempts.microbatches}; change attempts.problems, "
                "attempts.group_size or attempts.updates"
            )
        phases = {
            arm.phase(stage): self._phase(arm, stage)
            for arm in self.arms
            for stage in arm.stages
        }
        object.__setattr__(self, "phases", phases)

    def run(self) -> None:
        """Everything in order; what a run before has done is read again.

        Probes are in `probes.jsonl`, policies in `policies/<arm>` in Hugging Face's
        format.
        """
        with ProbeRows(self.context.folder / "probes.jsonl") as probes:
            self._probe(probes, "base", 0, self.policy.params, self.policy.params)
            for arm in self.arms:
                self._train_arm(probes, arm)

    def _train_arm(self, probes: ProbeRows, arm: Arm) -> None:
        params, state = self.policy.params, None
        for stage in arm.stages:
            name = arm.phase(stage)
            state = self._train(probes, stage, self.phases[name], params)
            params = state.params
            self._probe(probes, name, stage.steps, params, _teacher(stage, state))
        target = self.context.folder / "policies" / arm.name
        if target.exists():
            return
        with self.context.display.task(f"Save {arm.name}", None) as progress:
            save_pretrained(
                params,
                self.policy.model.config,
                target,
                description=self.policy.folder,
                progress=lambda done, total, name: progress(done, name),
            )

    def _train(
        self, probes: ProbeRows, stage: Stage, phase: Phase, params: Any
    ) -> TrainState:
        context, every = self.context, self._config.evaluation.every
        state = restart(
            params,
            self.policy.model,
            make_optimizer(stage.optimizer),
            context.mesh,
            # One key for all arms: they start from the same attempts.
            context.key(1),
            teacher=stage.teacher,
        )
        log = AttemptLog(
            model=self.policy.model,
            tokenizer=self.tokenizer,
            samples=context.samples,
            temperature=self._config.attempts.temperature,
        )
        # Not `context.task`: the loop itself saves before it stops.
        with (
            context.timed(phase.name),
            context.display.task(f"Train {phase.name}", phase.steps) as progress,
        ):

            def on_data(done: int, state: TrainState, data: StepData) -> None:
                log.write(phase.name, done, state, data)
                if every and done and done % every == 0:
                    teacher = _teacher(stage, state)
                    self._probe(probes, phase.name, done, state.params, teacher)

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
                resume="whole" if self._config.resume == "whole" else "newest",
                on_data=on_data,
                on_step=on_step,
            )

    def _probe(
        self, probes: ProbeRows, arm: str, step: int, params: Any, teacher: Any
    ) -> None:
        """Measures the student, and the teacher with feedback on what it wrote."""
        settings = self._config.evaluation
        reads = settings.teacher and teacher is not None
        readers: list[Reader] = ["student", "teacher"] if reads else ["student"]
        if all(probes.find(arm, step, reader) for reader in readers):
            return
        measure = partial(probe, model=self.policy.model)
        with self.context.timed("evaluation"):
            alone, rollout = measure(
                self.student,
                params=params,
                problems=list(self.task.evaluation),
                key=self.context.key(2),
                samples=settings.samples,
            )
            probes.write(arm, step, "student", alone)
            said = (
                f"[dim]{arm} at {step}:[/] reward {_shown(alone.reward)}, entropy "
                f"{alone.entropy:.2f}, marginal entropy {alone.marginal_entropy:.2f}"
            )
            if reads:
                informed, _ = measure(
                    self.teacher,
                    params=teacher,
                    problems=[each.problem for each in rollout.trajectories],
                    key=self.context.key(3),
                    samples=1,
                    feedback=self._notes(rollout),
                )
                probes.write(arm, step, "teacher", informed)
                said += f"; teacher with feedback: reward {_shown(informed.reward)}"
        self.context.display.say(said)

    def _notes(self, rollout: Rollout) -> list[str | None]:
        return fit_feedback(
            self.tokenizer,
            [each.problem for each in rollout.trajectories],
            [each.feedback for each in rollout.trajectories],
            width=self.teacher_width,
            format=self.task.format,
        )

    # Parts of the above

    @property
    def _config(self) -> RunConfig:
        return self.context.config

    @property
    def teacher_width(self) -> int:
        """Tokens of the teacher's prompts."""
        return self.prompt_width + self._config.attempts.feedback_tokens

    @cached_property
    def student(self) -> Pipeline:
        """Puts the problem alone."""
        return self._pipeline(self.prompt_width)

    @cached_property
    def teacher(self) -> Pipeline:
        """Has room for feedback in its prompts."""
        return self._pipeline(self.teacher_width)

    def _pipeline(self, width: int) -> Pipeline:
        return Pipeline(
            generate=self._generate,
            tokenizer=self.tokenizer,
            judge=self.task.judge,
            writer=self.task.writer,
            prompt_width=width,
            format=self.task.format,
            loop=self.loop,
        )

    @cached_property
    def _generate(self) -> Any:
        config = self._config.attempts
        sampling = SamplingConfig(
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            stop_tokens=self.policy.stop_tokens,
            pad_token=pad_token(self.tokenizer),
        )
        return make_generate(self.policy.model, sampling, mesh=self.context.mesh)

    def _phase(self, arm: Arm, stage: Stage) -> Phase:
        config = self._config.attempts
        needs = needs_of(stage.terms)
        objective = make_objective(
            self.policy.model, stage.terms, temperature=config.temperature
        )
        return Phase(
            name=arm.phase(stage),
            steps=stage.steps,
            source=RolloutSource(
                self.task.problems,
                self.student,
                needs=needs,
                problems_per_step=config.problems,
                group_size=config.group_size,
                updates_per_rollout=config.updates,
                seed=self._config.seed,
                teacher_width=self.teacher_width if needs.feedback else None,
            ),
            train_step=make_train_step(
                self.policy.model,
                objective,
                make_optimizer(stage.optimizer),
                self.context.mesh,
                teacher=stage.teacher or BaseTeacher(),
                microbatches=config.microbatches,
            ),
            checkpoint_every=self._config.checkpoint_every,
        )


def load_recipe(context: RunContext[Any], task: Task, arms: Sequence[Arm]) -> Recipe:
    """The policy of a run on its mesh, and all that is made of it.

    Raises:
      CheckpointError: there is no such policy, or it is damaged.
      ConfigError: settings do not fit the policy, the mesh or the problems.
    """
    settings = context.config.policy
    if not settings.source:
        raise ConfigError(
            "expected a policy to train, got none: give --policy.source, a folder in "
            "Hugging Face's format or a hub id"
        )
    with (
        context.timed("load"),
        context.display.task("Load the policy", None) as progress,
    ):
        policy = load_pretrained(
            settings.source,
            context.mesh,
            revision=settings.revision,
            dtype=settings.dtype,
            remat=settings.remat,
            attention=settings.attention,
            progress=lambda done, total, name: progress(done, name),
        )
    tokenizer = cast(
        PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(policy.folder)
    )
    attempts = context.config.attempts
    everything = [*task.problems, *task.evaluation]
    ids = prompt_tokens(tokenizer, everything, format=task.format)
    width = attempts.prompt_tokens or padded_width([len(row) for row in ids], 8)
    longest = width + attempts.feedback_tokens + attempts.max_new_tokens
    if longest > policy.model.config.max_position_embeddings:
        raise ConfigError(
            f"expected prompts of {width} tokens, feedback of "
            f"{attempts.feedback_tokens} and attempts of {attempts.max_new_tokens} to "
            "fit into the policy's "
            f"{policy.model.config.max_position_embeddings} positions, got {longest}: "
            "lower attempts.prompt_tokens, feedback_tokens or max_new_tokens"
        )
    _say_memory(context, policy, arms)
    return Recipe(
        context=context,
        task=task,
        arms=tuple(arms),
        policy=policy,
        tokenizer=tokenizer,
        prompt_width=width,
    )


def _say_memory(
    context: RunContext[Any], policy: Pretrained, arms: Sequence[Arm]
) -> None:
    """What the largest phase holds on each device, before it is held."""
    stages = [stage for arm in arms for stage in arm.stages]
    held = max(
        (
            held_bytes(
                policy.model,
                make_optimizer(stage.optimizer),
                context.mesh,
                teacher=stage.teacher,
            )
            for stage in stages
        ),
        key=lambda parts: sum(parts.values()),
    )
    # The pretrained policy stays beside the one that is trained.
    held = {"pretrained": held["policy"], **held}
    parts = ", ".join(f"{name} {size / _GIB:.2f}" for name, size in held.items())
    context.display.say(
        f"Held on each device, GiB: {parts}; together "
        f"{sum(held.values()) / _GIB:.2f}, and activations, gradients and the "
        "sampler's cache on top"
    )


def _teacher(stage: Stage, state: TrainState) -> Any:
    """The weights that read feedback; None where none do."""
    if stage.teacher is None:
        return None
    return state.params if state.teacher is None else state.teacher


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
