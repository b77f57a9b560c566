"""From problems to judged attempts with feedback: sample, judge, write, in groups."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Int, Key
from transformers import PreTrainedTokenizerFast

from fdjax.data.chat import prompt_tokens
from fdjax.data.formats import PLAIN, PromptFormat
from fdjax.data.packing import pad_left
from fdjax.data.tokenizer import continuation_texts, end_token, pad_token
from fdjax.errors import ConfigError, DataError
from fdjax.feedback import Attempt, Feedback, Kind, Writer
from fdjax.feedback.writing import write_safely
from fdjax.judge import Judge, Judgement, LeanJudge
from fdjax.judge.answer import extract_name
from fdjax.lean import Status, Verdict
from fdjax.metrics import StageTimer
from fdjax.ranges import Whole, require, require_fields
from fdjax.records import Problem
from fdjax.rollout.event_loop import EventLoop
from fdjax.rollout.policy_chat import PolicyChat
from fdjax.rollout.trajectory import Rollout, Trajectory, Turn
from fdjax.sampling import Completions

__all__ = ["Pipeline"]

_log = logging.getLogger(__name__)

_TO_JUDGE = Judgement(reward=None, reason="not judged yet")
_NOT_WRITTEN = Feedback(error="nobody was asked for it")


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Turns problems into judged attempts with feedback.

    All attempts are sampled together; then each group goes its own way through judge
    and writer, and all groups at once. Their order is that of the problems, whatever
    was finished first.
    """

    generate: Callable[..., Completions]
    """`generate(params, prompts, prompt_valid, key)` of `fdjax.sampling`."""
    tokenizer: PreTrainedTokenizerFast
    judge: Judge
    writer: Writer
    prompt_width: int
    """S, tokens; from a longer prompt nothing is sampled."""
    format: PromptFormat = PLAIN
    """How problems are put to the policy; a `LeanJudge` must extract answers by it."""
    policy: PolicyChat | None = None
    """The policy as the model that the writer asks; None where it asks another."""
    phase: str = ""
    """Of which phase the attempts are, in recordings of what the policy says of them.
    """
    loop: EventLoop = field(default_factory=EventLoop, repr=False)
    """Where judge and writer run; pipelines with the same writer share one."""

    def __post_init__(self) -> None:
        require_fields(self, prompt_width=Whole(1))
        pad_token(self.tokenizer)
        end_token(self.tokenizer)
        if not isinstance(self.judge, LeanJudge):
            return
        judged, asked = self.judge.extract, self.format.extract
        if judged != asked:
            raise ConfigError(
                "expected a LeanJudge that extracts answers as the format does, by "
                f"{extract_name(asked)}, got {extract_name(judged)}: give it "
                "extract=format.extract"
            )

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
        its feedback an error that says why.

        Args:
          params: policy parameters.
          problems: P problems.
          key: typed PRNG key of this rollout.
          group_size: G.
          version: optimizer steps that made `params`.
          feedback: text shown in each problem's prompt [P]; none for a student.
          comment: whether the writer is asked for feedback on the attempts.
          timer: collects the seconds of each stage; those of feedback are what it takes
            beyond the last judgement.

        Returns:
          P·G attempts with judgements and feedback.

        Raises:
          ConfigError: `group_size` is not positive; the tokenizer lacks a template.
          DataError: there are no problems.
          FeedbackError: the writer gives the run up.
          InstallError: Lean is not installed.
        """
        require("group_size", group_size, Whole(1))
        if not problems:
            raise DataError("Pipeline.collect: expected problems, got none")
        timer = timer or StageTimer()
        pad = pad_token(self.tokenizer)
        ids = prompt_tokens(self.tokenizer, problems, feedback, self.format)
        prompts, valid = pad_left(
            # A prompt that does not fit is cut, to keep its place in the batch.
            [row[-self.prompt_width :] for row in ids],
            width=self.prompt_width,
            pad=pad,
        )
        with timer.stage("sample"):
            sampled = self.generate(
                params, prompts, valid, key, samples_per_prompt=group_size
            )
            completions = jax.tree.map(np.asarray, sampled)
        attempts = self._trajectories(problems, ids, completions, group_size, version)
        groups = [
            attempts[start : start + group_size]
            for start in range(0, len(attempts), group_size)
        ]
        if self.policy is None or not comment:
            finished = self.loop.run(self._finish(groups, comment, timer))
        else:
            with self.policy.round(
                params, key, phase=self.phase, step=version, groups=len(groups)
            ) as (jobs, done):
                finish = self._finish(groups, comment, timer, done)
                finished = self.loop.run(finish, jobs)
        trajectories = tuple(each for group in finished for each in group)
        _warn_of_missing(trajectories)
        return Rollout(
            trajectories=trajectories,
            group_size=group_size,
            prompt_width=self.prompt_width,
            response_width=completions.tokens.shape[1],
            pad=pad,
            sampling=completions.sampling,
        )

    def _trajectories(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[Sequence[int]],
        completions: Completions,
        group_size: int,
        version: int,
    ) -> list[Trajectory]:
        """What was sampled, not judged yet."""
        fits = np.array([len(prompt) <= self.prompt_width for prompt in prompts])
        masks = np.asarray(completions.mask) & np.repeat(fits, group_size)[:, None]
        tokens, logprobs, entropy = map(
            np.asarray,
            (completions.tokens, completions.logprobs, completions.entropy),
        )
        texts = self.decode(tokens, masks)
        attempts = []
        for row, (mask, text) in enumerate(zip(masks, texts, strict=True)):
            group, member = divmod(row, group_size)
            prompt = prompts[group]
            asked = Turn(role="user", tokens=np.asarray(prompt, np.int32))
            written = Turn(
                role="assistant",
                tokens=tokens[row][mask],
                logprobs=logprobs[row][mask],
                entropy=entropy[row][mask],
            )
            attempts.append(
                Trajectory(
                    problem=problems[group],
                    group=group,
                    member=member,
                    turns=(asked, written),
                    version=version,
                    finished=bool(completions.finished[row] and fits[group]),
                    text=text,
                    judgement=_TO_JUDGE if fits[group] else self._unsampled(prompt),
                    feedback=_NOT_WRITTEN,
                )
            )
        return attempts

    def _unsampled(self, prompt: Sequence[int]) -> Judgement:
        """On attempts at a prompt that is too long."""
        reason = (
            f"nothing was sampled: the prompt has {len(prompt)} tokens, more than "
            f"prompt_width = {self.prompt_width}"
        )
        verdict = Verdict(status=Status.CRASHED, reason=reason)
        return Judgement(reward=None, reason=reason, verdict=verdict)

    def decode(
        self, tokens: Int[np.ndarray, "B T"], mask: Bool[np.ndarray, "B T"]
    ) -> list[str]:
        """The text of each row as it continues a prompt, control tokens left out."""
        rows = [row[keep] for row, keep in zip(tokens, mask, strict=True)]
        return continuation_texts(self.tokenizer, rows)

    async def _finish(
        self,
        groups: Sequence[Sequence[Trajectory]],
        comment: bool,
        timer: StageTimer,
        written: Callable[[], None] = lambda: None,
    ) -> list[list[Trajectory]]:
        """Each group through judge and writer, all at once, in order.

        `written` is called when a group has its feedback, or will have none.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                judged = [tasks.create_task(self._judged(group)) for group in groups]
                done = judged
                if comment:
                    done = [
                        tasks.create_task(self._written(group, written))
                        for group in judged
                    ]
                with timer.stage("verify"):
                    await asyncio.wait(judged)
                with timer.stage("feedback"):
                    await asyncio.wait(done)
        except BaseExceptionGroup as errors:
            # The first one was the reason to cancel the others.
            raise errors.exceptions[0] from None
        return [task.result() for task in done]

    async def _judged(self, group: Sequence[Trajectory]) -> list[Trajectory]:
        if group[0].judgement is not _TO_JUDGE:
            return list(group)
        start = time.monotonic()
        judgements = await self.judge.judge(
            [(each.problem, each.text) for each in group]
        )
        if len(judgements) != len(group):
            raise DataError(
                f"{type(self.judge).__name__}.judge: expected {len(group)} judgements, "
                f"one for each attempt in order, got {len(judgements)}"
            )
        seconds = {"judge": time.monotonic() - start}
        return [
            replace(each, judgement=judgement, seconds=seconds)
            for each, judgement in zip(group, judgements, strict=True)
        ]

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
