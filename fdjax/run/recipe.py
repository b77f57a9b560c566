"""A run from a pretrained policy: load, measure, train each arm, measure, save."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerFast

from fdjax.checkpoint import (
    Exports,
    Pretrained,
    export_adapters,
    export_policy,
    load_pretrained,
    save_adapters,
    save_pretrained,
)
from fdjax.episodes import Budget, Episodes
from fdjax.errors import ConfigError
from fdjax.feedback import PolicyFeedback, Writer
from fdjax.feedback.writing import aclose_all
from fdjax.objects import Place, is_whole, publish
from fdjax.rollout import Pipeline, PolicyChat
from fdjax.run.attempts import AttemptLog
from fdjax.run.config import RunConfig
from fdjax.run.context import RunContext
from fdjax.run.guarding import Guarding
from fdjax.run.plan import memory_note
from fdjax.run.policy import described_policy, prompt_width
from fdjax.run.prober import Prober
from fdjax.run.probes import ProbeAt, ProbeRows
from fdjax.run.sampler import make_sampler
from fdjax.run.task import BASE, Arm, Task, phases_of
from fdjax.sampling import Sampler
from fdjax.sharding import batch_parts, on_first, on_first_slowly
from fdjax.train import (
    LogprobGap,
    PhaseConfig,
    Profile,
    RolloutSource,
    StepData,
    TrainState,
    train_phases,
)

__all__ = ["Recipe", "load_recipe"]

_SHOWN = {"train/loss": "loss", "reward/mean": "reward", "rollout/entropy": "entropy"}
"""Metrics beside a progress bar; of an arm with rewards, those of the attempts."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A policy, a task, and the arms that learn it.

    Raises:
      ConfigError: a batch does not divide, or two phases have one name.
    """

    context: RunContext[Any]
    task: Task
    arms: tuple[Arm, ...]
    policy: Pretrained
    tokenizer: PreTrainedTokenizerFast
    sampler: Sampler
    """Of all that the policies say: attempts, a teacher's too, and reviews."""
    prompt_width: int
    """Tokens of the student's prompts."""

    def __post_init__(self) -> None:
        rows, parts = self._config.attempts.batch_size, batch_parts(self.context.mesh)
        for phase in phases_of(self.arms):
            if rows % (parts * phase.microbatches):
                raise ConfigError(
                    f"expected attempts of an optimizer step, {rows}, to be divisible "
                    f"by the {parts} devices that share them × microbatches = "
                    f"{phase.microbatches} of {phase.name}; change attempts.problems, "
                    "attempts.group_size or attempts.updates"
                )
        for arm in self.arms:
            # Their errors are better before the first phase than after it.
            self._sources(arm)

    def run(self) -> None:
        """Everything in order; what a run before has done is read again.

        Probes are in `probes.jsonl`, policies in `policies/<arm>` in Hugging Face's
        format, and with LoRA adapters alone in `adapters/<arm>` in that of PEFT. Where
        `checkpoints.export_every` asks for it, `exports/<phase>-<iteration>` holds what
        was trained by then: the policy, with LoRA the adapters.
        """
        with ProbeRows(self.context.own_file("probes.jsonl")) as rows:
            prober = Prober(
                context=self.context,
                model=self.policy.model,
                problems=self.task.evaluation,
                student=self.student,
                teacher=self.teacher,
                rows=rows,
            )
            base = ProbeAt(arm=BASE, step=0, policy=BASE, iterations=0)
            params = self.policy.params
            reads = any(phase.needs.feedback for phase in phases_of(self.arms))
            prober.measure(base, params, params if reads else None)
            self.context.mirror.keep()
            for arm in self.arms:
                self._train_arm(prober, arm)

    def _train_arm(self, prober: Prober, arm: Arm) -> None:
        context, settings = self.context, self._config
        log = AttemptLog(
            model=self.policy.model,
            tokenizer=self.tokenizer,
            samples=context.samples,
            temperature=settings.attempts.temperature,
        )
        guarding = Guarding(context=context, task=self.task)
        by_name = {phase.name: phase for phase in arm.phases}
        sources = self._sources(arm)
        reached = dict.fromkeys(by_name, 0)

        def measure(name: str, state: TrainState) -> None:
            prober.measure(
                ProbeAt(
                    arm=name,
                    step=reached[name],
                    policy=arm.name,
                    iterations=sum(reached.values()),
                ),
                state.policy,
                _teacher(by_name[name], state),
            )
            context.mirror.keep()

        total = sum(phase.steps for phase in arm.phases)
        # Not `context.task`: the loop itself saves before it stops.
        with (
            context.timed(arm.name),
            context.display.task(f"Train {arm.name}", total) as progress,
        ):

            def on_data(
                name: str, done: int, state: TrainState, data: StepData
            ) -> None:
                log.write(name, done, state, data)
                # Before the first phase the policy is the pretrained one.
                handed_over = done == 0 and name != arm.phases[0].name
                every = settings.evaluation.every
                if handed_over or (every and done and done % every == 0):
                    measure(name, state)

            def on_step(name: str, done: int, metrics: dict[str, float]) -> None:
                reached[name] = done
                context.saved(name)
                guarding.canaries(name, done)
                values = [
                    f"{label} {metrics[key]:.2f}"
                    for key, label in _SHOWN.items()
                    if not math.isnan(metrics.get(key, math.nan))
                ]
                progress(sum(reached.values()), "  ".join(values[-2:]))

            state = train_phases(
                arm.phases,
                self.policy.params,
                model=self.policy.model,
                mesh=context.mesh,
                # One key for all arms: they start from the same attempts.
                key=context.key(1),
                source=lambda phase: sources[phase.name],
                directory=context.home / "checkpoints",
                keep=context.mirror.keep,
                writer=context.writer,
                samples=context.samples,
                stop=context.stop,
                lora=settings.policy.lora,
                guards=guarding.guards,
                profile=Profile(
                    iterations=settings.profile, folder=context.folder / "profile"
                ),
                run=context.run,
                checkpoints=settings.checkpoints,
                exports=self._exports,
                on_data=on_data,
                on_step=on_step,
            )
        for phase in arm.phases:
            context.journal.passed(phase.name)
        measure(arm.phases[-1].name, state)
        target = context.home / "policies" / arm.name
        # A folder of this name is whole, however the process ends.
        partly = context.folder / "policies" / f".{arm.name}.partly"
        if on_first(lambda: _there_or_free(target, partly)):
            return
        with context.display.task(f"Save {arm.name}", None) as progress:
            save_pretrained(
                state.policy,
                self.policy.model.config,
                partly,
                description=self.policy.folder,
                progress=lambda done, total, name: progress(done, name),
            )
        self._save_adapters(arm.name, state)
        on_first_slowly(lambda: publish(partly, target))

    def _save_adapters(self, arm: str, state: TrainState) -> None:
        settings = self._config.policy
        if settings.lora is None:
            return
        target = self.context.home / "adapters" / arm
        partly = self.context.folder / "adapters" / f".{arm}.partly"
        on_first(lambda: shutil.rmtree(partly, ignore_errors=True))
        save_adapters(
            state.params,
            self.policy.model.config,
            partly,
            lora=settings.lora,
            base=settings.source,
        )
        on_first_slowly(lambda: publish(partly, target))

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
        config = self._config.attempts
        return Pipeline(
            sampler=self.sampler,
            episodes=Episodes(
                tokenizer=self.tokenizer,
                format=self.task.format,
                calls=self.task.calls,
                budget=Budget(
                    tokens=config.max_new_tokens,
                    turn_tokens=config.turn_tokens,
                    calls=config.calls,
                    prompt_tokens=width,
                ),
            ),
            tools=self.task.tools,
            judge=self.task.judge,
            writer=self._writer,
            judge_deadline_s=config.judge_deadline_s,
            feedback_deadline_s=config.feedback_deadline_s,
            policy=self._policy_chat,
            watch=self.context.stop.watch,
            journal=self.context.journal,
            keep_attempts=self._config.checkpoints.attempts,
            loop=self.context.loop,
        )

    @cached_property
    def _writer(self) -> Writer:
        writer, chat = self.task.writer, self._policy_chat
        if not isinstance(writer, PolicyFeedback) or chat is None:
            return cast(Writer, writer)
        made = writer.make(chat)
        # The recording closes with the run.
        self.context.resources.callback(
            lambda: self.context.loop.run(aclose_all([made]))
        )
        return made

    @cached_property
    def _policy_chat(self) -> PolicyChat | None:
        """The policy as a writer's model, where the task wants it."""
        settings = self.task.writer
        if not isinstance(settings, PolicyFeedback):
            return None
        return PolicyChat(
            settings,
            self.sampler,
            self.tokenizer,
            format=self.task.format,
            name=Path(self._config.policy.source).name,
        )

    @cached_property
    def _exports(self) -> Exports:
        """What is written of the checkpoints for others, in `exports`."""
        settings, config = self._config.policy, self.policy.model.config
        if settings.lora is None:
            write = export_policy(config, self.policy.folder)
        else:
            write = export_adapters(config, settings.lora, settings.source)
        return Exports(self.context.home / "exports", write)

    @cached_property
    def _gap(self) -> LogprobGap:
        return LogprobGap(self.policy.model)

    def _sources(self, arm: Arm) -> dict[str, RolloutSource]:
        """The data of each phase; it goes on where the phase before stops."""
        config = self._config.attempts
        sources: dict[str, RolloutSource] = {}
        before: RolloutSource | None = None
        for phase in arm.phases:
            before = sources[phase.name] = RolloutSource(
                self.task.problems,
                replace(self.student, phase=phase.name),
                needs=phase.needs,
                problems_per_step=config.problems,
                group_size=config.group_size,
                updates_per_rollout=config.updates,
                seed=self._config.seed,
                teacher_width=self.teacher_width if phase.needs.feedback else None,
                sampling=config.sampling,
                gap=self._gap,
                staleness=config.staleness,
                iterations=phase.steps,
                after=before,
            )
        return sources


def load_recipe(context: RunContext[Any], task: Task, arms: Sequence[Arm]) -> Recipe:
    """The policy of a run on its mesh, and all that is made of it.

    Raises:
      CheckpointError: there is no such policy, or it is damaged.
      ConfigError: settings do not fit the policy, the mesh or the problems.
    """
    settings = context.config.policy
    described = described_policy(settings, context.mesh)
    model, tokenizer = described.model, described.tokenizer
    width = prompt_width(context.config, task, model, tokenizer)
    sampler = make_sampler(
        context.config,
        task,
        described,
        context.mesh,
        width,
        stopping=lambda: context.stop.requested,
    )
    context.resources.callback(sampler.close)
    context.display.say(memory_note(arms, model, settings.lora, sampler))
    with (
        context.timed("load"),
        context.display.task("Load the policy", None) as progress,
    ):
        policy = load_pretrained(
            settings.source,
            context.mesh,
            param_dtype=settings.param_dtype,
            revision=settings.revision,
            dtype=settings.dtype,
            remat=settings.remat,
            attention=settings.attention,
            progress=lambda done, total, name: progress(done, name),
        )
    return Recipe(
        context=context,
        task=task,
        arms=tuple(arms),
        policy=policy,
        tokenizer=tokenizer,
        sampler=sampler,
        prompt_width=width,
    )


def _there_or_free(target: Place, partly: Path) -> bool:
    """Whether a folder is there; else the one that becomes it is cleared away."""
    there = is_whole(target)
    if not there:
        shutil.rmtree(partly, ignore_errors=True)
    return there


def _teacher(phase: PhaseConfig, state: TrainState) -> Any:
    """The weights that read feedback; None where none do."""
    if not phase.needs.feedback:
        return None
    return state.teacher_policy
