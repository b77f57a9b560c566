"""The stages that the groups of a rollout go through: play, judge, write."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Key

from fdjax.episodes import Episode, Episodes
from fdjax.errors import DataError
from fdjax.feedback import Attempt, Feedback, Kind, Writer
from fdjax.feedback.writing import write_in_time
from fdjax.judge import Judge, Judgement
from fdjax.lean import Status, Verdict
from fdjax.metrics import StageTimer
from fdjax.records import Problem
from fdjax.rollout.journal import Page
from fdjax.rollout.pending import Groups, as_sampled, is_whole
from fdjax.rollout.trajectory import Trajectory
from fdjax.sampling import Sampler
from fdjax.tools import Toolbox

__all__ = ["OpensTools", "Stages"]

_log = logging.getLogger(__name__)

_NOT_WRITTEN = Feedback(error="nobody was asked for it")


@runtime_checkable
class OpensTools(Protocol):
    """Makes the tools of one episode, such as `fdjax.tools.LeanTools`."""

    def open(self) -> AbstractContextManager[Toolbox]:
        """Tools on a workspace of their own, which goes at the end."""
        ...


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Plays the groups of one rollout at once, and sends each on as it is through."""

    sampler: Sampler
    episodes: Episodes
    tools: OpensTools | None
    judge: Judge
    judge_deadline_s: float
    writer: Writer | None
    """None where nobody is asked for feedback."""
    feedback_deadline_s: float
    page: Page | None
    """Of the journal; None where nothing is kept."""
    timer: StageTimer
    written: Callable[[], None]
    """Called when a group has its feedback, or will have none."""
    groups: Groups = field(repr=False)

    async def run(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[Sequence[int]],
        key: Key[Array, ""],
        size: int,
    ) -> list[list[Trajectory]]:
        """Groups of `size` attempts through all stages, in order.

        Args:
          problems: of the groups.
          prompts: token ids that put them.
          key: of the rollout, on a device of this process.
          size: attempts at each problem.
        """
        try:
            found = []
            if problems:
                found = await self._run(problems, prompts, key, size)
        except asyncio.CancelledError:
            self.groups.played.cancel()
            raise
        except BaseException as error:
            # Whoever waits for the episodes alone learns it, too.
            if not self.groups.played.done():
                self.groups.played.set_exception(error)
            raise
        if not problems:
            self.groups.played.set_result([])
        _warn_of_missing([each for group in found for each in group])
        return found

    async def resume(
        self, groups: Sequence[list[Trajectory]]
    ) -> list[list[Trajectory]]:
        """Groups that are sampled, through the stages that they lack."""
        self.groups.played.set_result(
            [[each.episode for each in group] for group in groups]
        )

        async def rest(place: int, group: list[Trajectory]) -> list[Trajectory]:
            if not is_whole(group):
                episodes = [each.episode for each in group]
                group = await self._commented(await self._judged(place, episodes))
            self.groups.whole[place] = group
            return group

        try:
            async with asyncio.TaskGroup() as tasks:
                done = [
                    tasks.create_task(rest(place, group))
                    for place, group in enumerate(groups, self.groups.first)
                ]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in done]

    async def _run(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[Sequence[int]],
        key: Key[Array, ""],
        size: int,
    ) -> list[list[Trajectory]]:
        first = self.groups.first
        try:
            async with asyncio.TaskGroup() as tasks:
                with self.sampler.together():
                    played = [
                        self._started(tasks, place, problem, prompt, key, size)
                        for place, (problem, prompt) in enumerate(
                            zip(problems, prompts, strict=True), first
                        )
                    ]
                    # Each asks for its first turn.
                    await asyncio.sleep(0)
                judged = [
                    tasks.create_task(self._judged_once_played(group))
                    for group in played
                ]
                done = [
                    tasks.create_task(self._finished_once_judged(place, group))
                    for place, group in enumerate(judged, first)
                ]
                with self.timer.stage("sample"):
                    await asyncio.wait(
                        [each for group in played for each in group.episodes]
                    )
                self.groups.played.set_result(
                    [[each.result() for each in group.episodes] for group in played]
                )
                with self.timer.stage("verify"):
                    await asyncio.wait(judged)
                with self.timer.stage("feedback"):
                    await asyncio.wait(done)
        except BaseExceptionGroup as errors:
            # The first one was the reason to cancel the others.
            raise errors.exceptions[0] from None
        return [task.result() for task in done]

    def _started(
        self,
        tasks: asyncio.TaskGroup,
        place: int,
        problem: Problem,
        prompt: Sequence[int],
        key: Key[Array, ""],
        size: int,
    ) -> "_Playing":
        """A group that the journal has as it was sampled, or that begins to play."""
        question = [place, size, list(prompt), jax.random.key_data(key).tolist()]
        known = self.page.sampled(question, problem) if self.page else []
        if known:
            episodes = [_done(each.episode) for each in known]
        else:
            episodes = [
                tasks.create_task(
                    self._played(
                        problem, prompt, jax.random.fold_in(key, place * size + member)
                    )
                )
                for member in range(size)
            ]
        return _Playing(place, question, episodes, kept=bool(known))

    async def _played(
        self, problem: Problem, prompt: Sequence[int], key: Key[Array, ""]
    ) -> Episode:
        opened = nullcontext() if self.tools is None else self.tools.open()
        with opened as toolbox:
            return await self.episodes.run(
                problem, self.sampler, toolbox, key, prompt=prompt
            )

    async def _judged_once_played(self, playing: "_Playing") -> list[Trajectory]:
        episodes = await asyncio.gather(*playing.episodes)
        if self.page and not playing.kept:
            group = as_sampled(playing.place, episodes)
            await self.page.keep(playing.question, group)
        return await self._judged(playing.place, episodes)

    async def _finished_once_judged(
        self, place: int, judged: "asyncio.Task[list[Trajectory]]"
    ) -> list[Trajectory]:
        try:
            group = await self._commented(await judged)
        finally:
            self.written()
        self.groups.whole[place] = group
        return group

    async def _judged(
        self, place: int, episodes: Sequence[Episode]
    ) -> list[Trajectory]:
        start = time.monotonic()
        judgements = await self._judgements(place, episodes)
        seconds = {"judge": time.monotonic() - start}
        return [
            Trajectory(
                episode=episode,
                group=place,
                member=member,
                judgement=judgement,
                feedback=_NOT_WRITTEN,
                seconds=episode.seconds | seconds,
            )
            for member, (episode, judgement) in enumerate(
                zip(episodes, judgements, strict=True)
            )
        ]

    async def _judgements(
        self, place: int, episodes: Sequence[Episode]
    ) -> list[Judgement]:
        """Of a group, those that came to something by the judge."""
        whole = [each for each in episodes if each.ended not in ("prompt", "lost")]
        found: Sequence[Judgement] = ()
        if whole:
            attempts = [(each.problem, each.text) for each in whole]
            ask, page = partial(self._asked_judge, attempts), self.page
            found = await (page.judgements(place, attempts, ask) if page else ask())
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

    async def _asked_judge(
        self, attempts: Sequence[tuple[Problem, str]]
    ) -> Sequence[Judgement]:
        limit = asyncio.timeout(self.judge_deadline_s)
        try:
            async with limit:
                return await self.judge.judge(attempts)
        except TimeoutError:
            # A judge may raise it for reasons of its own.
            if not limit.expired():
                raise
        reason = f"no judgement came within {self.judge_deadline_s:g} s"
        return [_undecided(reason)] * len(attempts)

    def _unjudged(self, episode: Episode) -> Judgement:
        """On an attempt that nobody could make."""
        if episode.ended == "lost":
            return _undecided(f"the attempt was lost: {episode.reason}")
        return _undecided(
            f"nothing was sampled: the prompt has {len(episode.prompt)} tokens, more "
            f"than Budget.prompt_tokens = {self.episodes.budget.prompt_tokens}"
        )

    async def _commented(self, group: list[Trajectory]) -> list[Trajectory]:
        """A judged group with what the writer says of it, where one is asked."""
        if self.writer is None:
            return group
        start = time.monotonic()
        notes = await self._feedback(self.writer, group)
        spent = {"feedback": time.monotonic() - start}
        return [
            replace(each, feedback=note, seconds=each.seconds | spent)
            for each, note in zip(group, notes, strict=True)
        ]

    async def _feedback(
        self, writer: Writer, group: Sequence[Trajectory]
    ) -> list[Feedback]:
        """Feedback on each attempt, in order; an error where there is none.

        Attempts that were not judged are not shown to the writer.
        """
        notes = [
            Feedback.failed(Kind.UNJUDGED, each.judgement.reason) for each in group
        ]
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
        deadline_s, page = self.feedback_deadline_s, self.page
        ask = partial(write_in_time, writer, attempts, deadline_s)
        place = group[0].group
        written = await (page.feedback(place, attempts, ask) if page else ask())
        for row, note in zip(rows, written, strict=True):
            notes[row] = note
        return notes


@dataclass(frozen=True)
class _Playing:
    """A group whose episodes are under way."""

    place: int
    question: Sequence[Any]
    """All that decides what is sampled, beside the weights of the rollout."""
    episodes: "Sequence[asyncio.Future[Episode]]"
    kept: bool
    """Whether the journal had it: then all of them are done."""


def _done(episode: Episode) -> "asyncio.Future[Episode]":
    future = asyncio.get_running_loop().create_future()
    future.set_result(episode)
    return future


def _undecided(reason: str) -> Judgement:
    verdict = Verdict(status=Status.CRASHED, reason=reason)
    return Judgement(reward=None, reason=reason, verdict=verdict)


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
