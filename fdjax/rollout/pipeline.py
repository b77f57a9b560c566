"""From problems to judged attempts with feedback: play, judge, write, in groups."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Key
from transformers import PreTrainedTokenizerFast

from fdjax.data.formats import PromptFormat
from fdjax.data.tokenizer import end_token, pad_token
from fdjax.episodes import Episode, Episodes
from fdjax.errors import ConfigError, DataError
from fdjax.feedback import Attempt, Feedback, Kind, Writer
from fdjax.feedback.writing import write_safely
from fdjax.judge import Judge, Judgement, LeanJudge
from fdjax.judge.answer import extract_name
from fdjax.lean import Status, Verdict
from fdjax.metrics import StageTimer
from fdjax.ranges import Whole, require
from fdjax.records import Problem
from fdjax.rollout.event_loop import EventLoop
from fdjax.rollout.exchange import exchange
from fdjax.rollout.policy_chat import PolicyChat
from fdjax.rollout.trajectory import Rollout, Trajectory
from fdjax.sampling import Sampler, SlotSampler
from fdjax.sharding import share
from fdjax.tools import Toolbox

__all__ = ["OpensTools", "Pipeline"]

_log = logging.getLogger(__name__)

_NOT_WRITTEN = Feedback(error="nobody was asked for it")


@runtime_checkable
class OpensTools(Protocol):
    """Makes the tools of one episode, such as `fdjax.tools.LeanTools`."""

    def open(self) -> AbstractContextManager[Toolbox]:
        """Tools on a workspace of their own, which goes at the end."""
        ...


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Turns problems into judged attempts with feedback.

    All episodes are played at once, each at its own pace; a group goes to judge and
    writer as soon as its episodes have ended. The order of the groups is that of the
    problems, whatever was finished first. Devices work in the thread that calls
    `collect`.
    """

    sampler: Sampler
    episodes: Episodes
    """How an attempt is made; `budget.prompt_tokens` says which prompts are too long.
    A `LeanJudge` must extract answers by its format."""
    judge: Judge
    writer: Writer
    tools: OpensTools | None = None
    """Of the episodes that call; None where an attempt is the whole proof."""
    policy: PolicyChat | None = None
    """The policy as the model that the writer asks; None where it asks another."""
    phase: str = ""
    """Of which phase the attempts are, in recordings of what the policy says of them.
    """
    loop: EventLoop = field(default_factory=EventLoop, repr=False)
    """Where episodes, judge and writer run; pipelines with the same writer share one.
    """

    def __post_init__(self) -> None:
        pad_token(self.tokenizer)
        end_token(self.tokenizer)
        if self.episodes.budget.prompt_tokens is None:
            raise ConfigError(
                "expected Budget.prompt_tokens, the width of the prompts, got none: "
                "batches of one shape need it"
            )
        if (self.tools is None) != (self.episodes.calls is None):
            raise ConfigError(
                f"expected tools where episodes call, and only there, got {self.tools} "
                f"and calls {self.episodes.calls}: give both or neither"
            )
        if jax.process_count() > 1 and isinstance(self.sampler, SlotSampler):
            raise ConfigError(
                "expected a SharedSampler, because several processes sample together, "
                "got a SlotSampler: give SharedSampler(sampler)"
            )
        if not isinstance(self.judge, LeanJudge):
            return
        judged, asked = self.judge.extract, self.format.extract
        if judged != asked:
            raise ConfigError(
                "expected a LeanJudge that extracts answers as the format does, by "
                f"{extract_name(asked)}, got {extract_name(judged)}: give it "
                "extract=format.extract"
            )

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Of the policy."""
        return self.episodes.tokenizer

    @property
    def format(self) -> PromptFormat:
        """How problems are put to the policy, its tools included."""
        return self.episodes.asking

    @property
    def prompt_width(self) -> int:
        """S, tokens; from a longer prompt nothing is sampled."""
        return self.episodes.budget.prompt_tokens or 0

    def collect(
        self,
        params: Any,
        problems: Sequence[Problem],
        key: Key[Array, ""],
        *,
        group_size: int,
        version: int = 0,
        feedback: Sequence[str | None] | None = None,
        comment: bool = True,
        timer: StageTimer | None = None,
    ) -> Rollout:
        """Samples `group_size` attempts at each problem and has them judged.

        What goes wrong with an attempt costs that attempt: its reward is missing and
        its feedback an error that says why. Attempt b, in the order of the problems,
        is played with `fold_in(key, b)`.

        Args:
          params: policy parameters.
          problems: P problems.
          key: typed PRNG key of this rollout.
          group_size: G.
          version: optimizer steps that made `params`.
          feedback: text shown in each problem's prompt [P]; none for a student.
          comment: whether the writer is asked for feedback on the attempts.
          timer: collects the seconds of each stage, those that it takes beyond the one
            before: stages of different groups overlap.

        Returns:
          P·G attempts with judgements and feedback.

        Raises:
          ConfigError: `group_size` is not positive; the tokenizer lacks a template.
          DataError: there are no problems, or the sampler refuses a prompt.
          FeedbackError: the writer gives the run up.
          InstallError: Lean is not installed.
          SamplerClosedError: the sampler was closed.
        """
        require("group_size", group_size, Whole(1))
        if not problems:
            raise DataError("Pipeline.collect: expected problems, got none")
        timer = timer or StageTimer()
        # A process plays, judges and comments on its own groups, with a key that is
        # its own, too: what it does is no program of all.
        mine = share(len(problems))
        key = _local(key)
        own = problems[mine.start : mine.stop]
        notes = feedback and feedback[mine.start : mine.stop]
        prompts = self.episodes.prompts(own, notes) if own else []
        with timer.stage("sample"):
            self.sampler.publish(params, version)
        asks = nullcontext(lambda: None)
        if self.policy is not None and comment:
            asks = self.policy.round(
                key, phase=self.phase, step=version, groups=len(own)
            )
        with asks as written:
            groups = self.loop.run(
                self._groups(
                    own,
                    prompts,
                    key,
                    first=mine.start,
                    group_size=group_size,
                    comment=comment,
                    timer=timer,
                    written=written,
                ),
                self.sampler.serve,
            )
        _warn_of_missing([each for group in groups for each in group])
        with timer.stage("gather"):
            groups = exchange(groups, problems)
        return Rollout(
            trajectories=tuple(each for group in groups for each in group),
            group_size=group_size,
            prompt_width=self.prompt_width,
            response_width=self.episodes.budget.tokens,
            pad=pad_token(self.tokenizer),
            sampling=self.sampler.sampling,
        )

    async def _groups(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[Sequence[int]],
        key: Key[Array, ""],
        *,
        first: int,
        group_size: int,
        comment: bool,
        timer: StageTimer,
        written: Callable[[], None],
    ) -> list[list[Trajectory]]:
        """Each group through all stages, all at once, in order.

        `first` is the place of the first group in the rollout. `written` is called when
        a group has its feedback, or will have none.
        """
        if not problems:
            return []
        try:
            async with asyncio.TaskGroup() as tasks:
                with self.sampler.together():
                    played = [
                        [
                            tasks.create_task(
                                self._played(
                                    problem, prompt, key, group * group_size + member
                                )
                            )
                            for member in range(group_size)
                        ]
                        for group, (problem, prompt) in enumerate(
                            zip(problems, prompts, strict=True), first
                        )
                    ]
                    # Each asks for its first turn.
                    await asyncio.sleep(0)
                judged = [
                    tasks.create_task(self._judged(group, episodes))
                    for group, episodes in enumerate(played, first)
                ]
                done = judged
                if comment:
                    done = [
                        tasks.create_task(self._written(group, written))
                        for group in judged
                    ]
                with timer.stage("sample"):
                    await asyncio.wait([each for group in played for each in group])
                with timer.stage("verify"):
                    await asyncio.wait(judged)
                with timer.stage("feedback"):
                    await asyncio.wait(done)
        except BaseExceptionGroup as errors:
            # The first one was the reason to cancel the others.
            raise errors.exceptions[0] from None
        return [task.result() for task in done]

    async def _played(
        self, problem: Problem, prompt: Sequence[int], key: Key[Array, ""], number: int
    ) -> Episode:
        opened = nullcontext() if self.tools is None else self.tools.open()
        with opened as toolbox:
            return await self.episodes.run(
                problem,
                self.sampler,
                toolbox,
                jax.random.fold_in(key, number),
                prompt=prompt,
            )

    async def _judged(
        self, group: int, played: "Sequence[asyncio.Task[Episode]]"
    ) -> list[Trajectory]:
        episodes = await asyncio.gather(*played)
        start = time.monotonic()
        judgements = await self._judgements(episodes)
        seconds = {"judge": time.monotonic() - start}
        return [
            Trajectory(
                episode=episode,
                group=group,
                member=member,
                judgement=judgement,
                feedback=_NOT_WRITTEN,
                seconds=episode.seconds | seconds,
            )
            for member, (episode, judgement) in enumerate(
                zip(episodes, judgements, strict=True)
            )
        ]

    async def _judgements(self, episodes: Sequence[Episode]) -> list[Judgement]:
        """Of a group, those that came to something by the judge."""
        whole = [each for each in episodes if each.ended not in ("prompt", "lost")]
        found: Sequence[Judgement] = ()
        if whole:
            attempts = [(each.problem, each.text) for each in whole]
            found = await self.judge.judge(attempts)
        if len(found) != len(whole):
            raise DataError(
                f"{type(self.judge).__name__}.judge: expected {len(whole)} judgements, "
                f"one for each attempt in order, got {len(found)}"
            )
        by_judge = iter(found)
        return [
            self._unjudged(each) if each.ended in ("prompt", "lost") else next(by_judge)
            for each in episodes
        ]

    def _unjudged(self, episode: Episode) -> Judgement:
        """On an attempt that nobody could make."""
        reason = f"the attempt was lost: {episode.reason}"
        if episode.ended == "prompt":
            reason = (
                f"nothing was sampled: the prompt has {len(episode.prompt)} tokens, "
                f"more than Budget.prompt_tokens = {self.prompt_width}"
            )
        verdict = Verdict(status=Status.CRASHED, reason=reason)
        return Judgement(reward=None, reason=reason, verdict=verdict)

    async def _written(
        self, judged: "asyncio.Task[list[Trajectory]]", written: Callable[[], None]
    ) -> list[Trajectory]:
        try:
            group = await judged
            start = time.monotonic()
            notes = await _feedback(self.writer, group)
            spent = {"feedback": time.monotonic() - start}
        finally:
            written()
        return [
            replace(each, feedback=note, seconds=each.seconds | spent)
            for each, note in zip(group, notes, strict=True)
        ]


async def _feedback(writer: Writer, group: Sequence[Trajectory]) -> list[Feedback]:
    """Feedback on each attempt, in order; an error where there is none.

    Attempts that were not judged are not shown to the writer.
    """
    notes = [Feedback.failed(Kind.UNJUDGED, each.judgement.reason) for each in group]
    rows = [row for row, each in enumerate(group) if not each.judgement.missing]
    if not rows:
        return notes
    attempts = [
        Attempt(
            problem=group[row].problem,
            text=group[row].text,
            judgement=group[row].judgement,
        )
        for row in rows
    ]
    for row, note in zip(rows, await write_safely(writer, attempts), strict=True):
        notes[row] = note
    return notes


def _local(key: Key[Array, ""]) -> Key[Array, ""]:
    """The same key on a device of this process alone."""
    data = jax.device_get(jax.random.key_data(key))
    return jax.random.wrap_key_data(jax.device_put(data), impl=jax.random.key_impl(key))


def _warn_of_missing(trajectories: Sequence[Trajectory]) -> None:
    """One line in the log for each way in which attempts were lost."""
    sampled = [each for each in trajectories if each.sampled]
    missing = [each for each in sampled if each.judgement.missing]
    broken = [each for each in missing if _broken(each)]
    undecided = [each for each in missing if not _broken(each)]
    silent = [
        each
        for each in sampled
        if not each.judgement.missing
        and each.feedback is not _NOT_WRITTEN
        and each.feedback.error
    ]
    for lost, problem in (
        (undecided, "were not judged"),
        (broken, "are at broken statements"),
        (silent, "have no feedback"),
    ):
        if lost:
            first = lost[0]
            reason = first.feedback.error if lost is silent else first.judgement.reason
            _log.warning(
                "%d of %d attempts %s, among them one at %s: %s",
                *(len(lost), len(sampled), problem, first.problem.name, reason),
            )


def _broken(trajectory: Trajectory) -> bool:
    verdict = trajectory.judgement.verdict
    return verdict is not None and verdict.broken_statement
