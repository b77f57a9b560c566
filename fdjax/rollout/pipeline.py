"""From problems to judged attempts with feedback: play, judge, write, in groups."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Key
from transformers import PreTrainedTokenizerFast

from fdjax.data.formats import PromptFormat
from fdjax.data.tokenizer import end_token, pad_token
from fdjax.episodes import Episodes
from fdjax.errors import ConfigError, DataError
from fdjax.feedback import Writer
from fdjax.judge import Judge, LeanJudge
from fdjax.judge.answer import extract_name
from fdjax.metrics import StageTimer
from fdjax.ranges import Number, Whole, require, require_fields
from fdjax.records import Problem
from fdjax.rollout.event_loop import EventLoop
from fdjax.rollout.journal import Journal, Page
from fdjax.rollout.pending import Groups, Pending, restored_groups
from fdjax.rollout.policy_chat import PolicyChat
from fdjax.rollout.stages import OpensTools, Stages
from fdjax.rollout.trajectory import Rollout, Trajectory
from fdjax.sampling import Sampler, SlotSampler
from fdjax.sharding import share

__all__ = ["OpensTools", "Pipeline"]

_SECONDS = Number(above=0)


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
    judge_deadline_s: float = 3600.0
    """Seconds that the judge has for a group; then its attempts count as not judged."""
    feedback_deadline_s: float = 3600.0
    """Seconds that the writer has for a group; then it has no feedback."""
    phase: str = ""
    """Of which phase the attempts are, in the journal and in recordings of what the
    policy says of them."""
    journal: Journal | None = field(default=None, repr=False)
    """Keeps what judge and writer say for a run that is killed."""
    keep_attempts: bool = False
    """Whether it keeps what was sampled, too."""
    watch: Callable[[Future[Any]], AbstractContextManager[Any]] = nullcontext
    """Around each wait for attempts, judges and writers; may cancel the work."""
    loop: EventLoop = field(default_factory=EventLoop, repr=False)
    """Where episodes, judge and writer run; pipelines with the same writer share one.
    """

    def __post_init__(self) -> None:
        pad_token(self.tokenizer)
        end_token(self.tokenizer)
        require_fields(self, judge_deadline_s=_SECONDS, feedback_deadline_s=_SECONDS)
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
        number: int | None = None,
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
          number: of the rollout in its phase; with one, the journal keeps its groups.

        Returns:
          P·G attempts with judgements and feedback.

        Raises:
          ConfigError: `group_size` is not positive; the tokenizer lacks a template.
          DataError: there are no problems, or the sampler refuses a prompt.
          FeedbackError: the writer gives the run up.
          InstallError: Lean is not installed.
          PeerError: another process failed.
          SamplerClosedError: the sampler was closed.
        """
        return self.begin(
            params,
            problems,
            key,
            group_size=group_size,
            version=version,
            feedback=feedback,
            comment=comment,
            timer=timer,
            number=number,
        ).result()

    def begin(
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
        number: int | None = None,
    ) -> Pending:
        """Samples as `collect` does, and leaves judges and writers at work.

        The devices are free for other work then, unless the writer asks the policy
        itself: these weights must answer, so the rollout is whole when this returns.
        Arguments and errors are those of `collect`.
        """
        require("group_size", group_size, Whole(1))
        if not problems:
            raise DataError("Pipeline: expected problems, got none")
        timer = timer or StageTimer()
        # A process plays, judges and comments on its own groups, with a key that is
        # its own, too: what it does is no program of all.
        mine = share(len(problems))
        own = problems[mine.start : mine.stop]
        notes = feedback and feedback[mine.start : mine.stop]
        prompts = self.episodes.prompts(own, notes) if own else []
        key = _local(key)
        with timer.stage("sample"):
            self.sampler.publish(params, version)
        asks = nullcontext(lambda: None)
        if self.policy is not None and comment:
            asks = self.policy.round(
                key, phase=self.phase, step=version, groups=len(own)
            )
        groups, page = Groups(first=mine.start), self._page(number)
        with asks as written:
            stages = self._stages(
                groups, page, comment=comment, timer=timer, written=written
            )
            done = self.loop.start(stages.run(own, prompts, key, group_size))
            try:
                until = groups.played if self.policy is None else done
                with self.watch(done):
                    self.sampler.serve(until)
                    # Cancelled, or failed: what the others learned of it, they know.
                    until.result()
            except BaseException:
                done.cancel()
                raise
        return Pending(
            problems=problems,
            groups=groups,
            done=done,
            watch=self.watch,
            sampler=self.sampler,
            rollout=partial(self.rollout, group_size=group_size),
            page=page,
        )

    def resume(
        self,
        saved: Mapping[str, Any],
        problems: Mapping[str, Problem],
        *,
        group_size: int,
        comment: bool = True,
        number: int | None = None,
    ) -> Pending:
        """Goes on with a rollout that was sampled before, of which groups may be whole.

        Args:
          saved: what `Pending.settle` told of it.
          problems: by fingerprint; its own are among them.
          group_size: G.
          comment: whether the writer is asked for feedback on the attempts.
          number: see `collect`.

        Raises:
          DataError: it is of other problems, or damaged.
        """
        own_problems, found = restored_groups(saved, problems)
        mine = share(len(found))
        groups, page = Groups(first=mine.start), self._page(number)
        stages = self._stages(groups, page, comment=comment)
        return Pending(
            problems=own_problems,
            groups=groups,
            done=self.loop.start(stages.resume(found[mine.start : mine.stop])),
            watch=self.watch,
            sampler=self.sampler,
            rollout=partial(self.rollout, group_size=group_size),
            page=page,
        )

    def _page(self, number: int | None) -> Page | None:
        if self.journal is None or number is None:
            return None
        return self.journal.page(self.phase, number, attempts=self.keep_attempts)

    def _stages(
        self,
        groups: Groups,
        page: Page | None,
        *,
        comment: bool,
        timer: StageTimer | None = None,
        written: Callable[[], None] = lambda: None,
    ) -> Stages:
        return Stages(
            sampler=self.sampler,
            episodes=self.episodes,
            tools=self.tools,
            judge=self.judge,
            judge_deadline_s=self.judge_deadline_s,
            writer=self.writer if comment else None,
            feedback_deadline_s=self.feedback_deadline_s,
            page=page,
            timer=timer or StageTimer(),
            written=written,
            groups=groups,
        )

    def rollout(
        self, groups: Sequence[Sequence[Trajectory]], *, group_size: int
    ) -> Rollout:
        """Groups of `group_size` attempts as a rollout of this pipeline."""
        return Rollout(
            trajectories=tuple(each for group in groups for each in group),
            group_size=group_size,
            prompt_width=self.prompt_width,
            response_width=self.episodes.budget.tokens,
            pad=pad_token(self.tokenizer),
            sampling=self.sampler.sampling,
        )


def _local(key: Key[Array, ""]) -> Key[Array, ""]:
    """The same key on a device of this process alone."""
    data = jax.device_get(jax.random.key_data(key))
    return jax.random.wrap_key_data(jax.device_put(data), impl=jax.random.key_impl(key))
