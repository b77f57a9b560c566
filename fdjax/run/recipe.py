"""A run from a pretrained policy: check, load, measure, train each arm, save."""

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
    checkpoint_steps,
    export_adapters,
    export_policy,
    load_pretrained,
    save_adapters,
    save_pretrained,
)
from fdjax.episodes import Budget, Episodes
from fdjax.errors import ConfigError
from fdjax.feedback import CompilerFeedback, PolicyFeedback, Writer
from fdjax.feedback.writing import aclose_all
from fdjax.objects import Place, is_whole, publish, withdraw
from fdjax.rollout import Pipeline, PolicyChat
from fdjax.run.attempts import AttemptLog
from fdjax.run.config import RunConfig
from fdjax.run.context import RunContext
from fdjax.run.guarding import Guarding
from fdjax.run.memory import memory_note
from fdjax.run.policy import PolicyDescription, described_policy, prompt_width
from fdjax.run.prober import Prober
from fdjax.run.probes import ProbeAt, ProbeRows
from fdjax.run.sampler import RunSampler, make_sampler
from fdjax.run.statements import check_statements
from fdjax.run.task import BASE, Arm, Task, phases_of
from fdjax.sharding import batch_parts, on_first, on_first_slowly
from fdjax.train import (
    LogprobGap,
    PhaseConfig,
    Profile,
    RolloutSource,
    StepData,
    TrainState,
    make_objective,
    train_phases,
)
from fdjax.train.phases import check_phases

__all__ = ["Recipe", "make_recipe"]

_SHOWN = {"train/loss": "loss", "reward/mean": "reward", "rollout/entropy": "entropy"}
"""Metrics beside a progress bar; of an arm with rewards, those of the attempts."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A policy, a task, and the arms that learn it; `make_recipe` makes it.

    All that can be refused without the policy's weights is refused here.

    Raises:
      ConfigError: a batch does not divide, phases do not follow each other, or settings
        do not fit the problems.
    """

    context: RunContext[Any]
    task: Task
    arms: tuple[Arm, ...]
    described: PolicyDescription
    """The policy before its weights are read."""
    sampler: RunSampler
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
        writer = self.task.writer
        if isinstance(writer, PolicyFeedback):
            writer.read_template()
            # Nobody is asked yet, and no recording opened.
            writer = CompilerFeedback()
        student = self._pipeline(self.prompt_width, writer)
        self._pipeline(self.teacher_width, writer)
        for arm in self.arms:
            check_phases(arm.phases)
            for phase in arm.phases:
                make_objective(self.described.model, phase.terms)
            self._sources(arm, student)

    def run(self) -> None:
        """Everything in order; what a run before has done is read again.

        Probes are in `probes.jsonl`, policies in `policies/<arm>` in Hugging Face's
        format, and with LoRA adapters alone in `adapters/<arm>` in that of PEFT. Where
        `checkpoints.export_every` asks for it, `exports/<phase>-<iteration>` holds what
        was trained by then: the policy, with LoRA the adapters.

        Raises:
          ConfigError: Lean understands no statement of the problems.
          CheckpointError: the policy's weights, or a checkpoint, cannot be read.
        """
        on_first_slowly(lambda: check_statements(self.task, self.context.display))
        with ProbeRows(self.context.own_file("probes.jsonl")) as rows:
            prober = Prober(
                context=self.context,
                model=self.described.model,
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
        sources = self._sources(arm, self.student)
        target = context.home / "policies" / arm.name
        on_first_slowly(lambda: self._withdraw_shorter(arm, target))
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
        # A folder of this name is whole, however the process ends.
        partly = context.folder / "policies" / f".{arm.name}.partly"
        if on_first(lambda: _there_or_free(target, partly)):
            return
        with context.display.task(f"Save {arm.name}", None) as progress:
            save_pretrained(
                state.policy,
                self.policy.model.config,
                partly,
                description=self.described.folder,
                progress=lambda done, total, name: progress(done, name),
            )
        self._save_adapters(arm.name, state)
        on_first_slowly(lambda: publish(partly, target))

    def _withdraw_shorter(self, arm: Arm, target: Place) -> None:
        """Takes away the policy of an arm that has become longer since."""
        last = arm.phases[-1]
        done = checkpoint_steps(self.context.home / "checkpoints" / last.name)
        if max(done, default=0) < last.steps:
            withdraw(target)

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

    @cached_property
    def policy(self) -> Pretrained:
        """The policy with its weights, which are read when it is first asked for.

        Raises:
          CheckpointError: they are missing or damaged.
        """
        context, settings = self.context, self._config.policy
        note = memory_note(self.arms, self.described.model, settings.lora, self.sampler)
        context.display.say(note)
        with (
            context.timed("load"),
            context.display.task("Load the policy", None) as progress,
        ):
            return load_pretrained(
                settings.source,
                context.mesh,
                param_dtype=settings.param_dtype,
                revision=settings.revision,
                dtype=settings.dtype,
                remat=settings.remat,
                attention=settings.attention,
                progress=lambda done, total, name: progress(done, name),
            )

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Of the policy."""
        return self.described.tokenizer

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
        return self._pipeline(self.prompt_width, self._writer)

    @cached_property
    def teacher(self) -> Pipeline:
        """Has room for feedback in its prompts."""
        return self._pipeline(self.teacher_width, self._writer)

    def _pipeline(self, width: int, writer: Writer) -> Pipeline:
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
            writer=writer,
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
        settings, config = self._config.policy, self.described.model.config
        if settings.lora is None:
            write = export_policy(config, self.described.folder)
        else:
            write = export_adapters(config, settings.lora, settings.source)
        return Exports(self.context.home / "exports", write)

    @cached_property
    def _gap(self) -> LogprobGap:
        return LogprobGap(self.described.model)

    def _sources(self, arm: Arm, student: Pipeline) -> dict[str, RolloutSource]:
        """The data of each phase; it goes on where the phase before stops."""
        config = self._config.attempts
        sources: dict[str, RolloutSource] = {}
        before: RolloutSource | None = None
        for phase in arm.phases:
            before = sources[phase.name] = RolloutSource(
                self.task.problems,
                replace(student, phase=phase.name),
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


def make_recipe(context: RunContext[Any], task: Task, arms: Sequence[Arm]) -> Recipe:
    """What a run does, all of it checked, before any weight of the policy is read.

    A dry run is a recipe that is not run.

    Raises:
      CheckpointError: there is no such policy.
      ConfigError: settings do not fit the policy, the mesh or the problems, or there
        are none.
    """
    for problems, purpose in (
        (task.problems, "to train on"),
        (task.evaluation, "held out, to measure policies on"),
    ):
        if not problems:
            raise ConfigError(
                f"expected problems {purpose}, got none: give some that are in one of "
                "the two sets only"
            )
    described = described_policy(context.config.policy, context.mesh)
    width = prompt_width(context.config, task, described.model, described.tokenizer)
    sampler = make_sampler(
        context.config,
        task,
        described,
        context.mesh,
        width,
        stopping=lambda: context.stop.requested,
    )
    context.resources.callback(sampler.close)
    return Recipe(
        context=context,
        task=task,
        arms=tuple(arms),
        described=described,
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
