"""Batches of fresh rollouts: groups of attempts, judged and commented."""

import operator
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import jax
import numpy as np
from jaxtyping import Float32

from fdjax.advantages import centred, leave_one_out, zscore
from fdjax.data.pipeline import BatchStream, fingerprint
from fdjax.data.sampling import PassRateSampling, PassRateStream, SampleCounts
from fdjax.errors import ConfigError
from fdjax.feedback import feedback_metrics
from fdjax.lean import Status
from fdjax.metrics import StageTimer
from fdjax.ranges import Whole, require
from fdjax.records import Mean, Metrics, Problem, union
from fdjax.rollout import Batch, Pending, Pipeline, Rollout, rollout_batch
from fdjax.train.logprob_gap import LogprobGap
from fdjax.train.sources import ResumableSource, StepData
from fdjax.train.state import TrainState
from fdjax.train.terms import Needs

__all__ = ["RolloutSource", "rollout_metrics"]

_ADVANTAGES = {
    "zscore": zscore,
    "centred": centred,
    "leave_one_out": leave_one_out,
}


class RolloutSource(ResumableSource):
    """Groups of fresh attempts at the next problems, with what an objective reads.

    Raises:
      ConfigError: a size or the seed is out of range, there are fewer problems, the
        attempts do not divide among the updates, or a teacher that reads feedback has
        no width.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        pipeline: Pipeline,
        *,
        needs: Needs,
        problems_per_step: int,
        group_size: int,
        updates_per_rollout: int,
        seed: int,
        teacher_width: int | None = None,
        sampling: PassRateSampling | None = None,
        gap: LogprobGap | None = None,
        staleness: int = 0,
        iterations: int | None = None,
        after: "RolloutSource | None" = None,
    ):
        """Begins at the first problems, or where another source is.

        Args:
          problems: to draw from.
          pipeline: samples, judges and has feedback written.
          needs: of the objective (`Objective.needs`).
          problems_per_step: P, problems in an iteration.
          group_size: G, attempts at each.
          updates_per_rollout: optimizer steps on an iteration's attempts; each takes as
            many.
          seed: of the problems' order.
          teacher_width: tokens of the prompts of a teacher that reads feedback.
          sampling: leaves out problems that are never or always solved of late; None
            draws all of them equally often.
          gap: holds the sampler's log-probabilities against the trainer's; without it
            nobody does.
          staleness: k, iterations by which sampling runs ahead: the batch of an
            iteration was sampled k iterations before, and meanwhile judged. 0 samples
            each batch by the newest weights.
          iterations: of the phase; for later ones nothing is sampled ahead.
          after: the source of the phase before, over the same problems in batches of
            the same size: this one goes on where it stops, with what it knows of them.
        """
        contrast = "wrong_feedback" in needs.teacher
        require(
            f"problems_per_step of {len(problems)} problems",
            problems_per_step,
            Whole(2 if contrast else 1, len(problems)),
            remedy="a wrong hint is one for another problem of the step"
            if contrast
            else "",
        )
        # An advantage compares the attempts of a group.
        require("group_size", group_size, Whole(2 if needs.advantage else 1))
        require("updates_per_rollout", updates_per_rollout, Whole(1))
        require("staleness", staleness, Whole(0))
        attempts = self._attempts = problems_per_step * group_size
        if attempts % updates_per_rollout:
            raise ConfigError(
                "expected updates_per_rollout to divide problems_per_step × group_size "
                f"= {attempts}, got {updates_per_rollout}: each optimizer step takes "
                "as many attempts"
            )
        settings: dict[str, int | str] = {
            "advantage": needs.advantage or "none",
            "teacher reads": ", ".join(sorted(needs.teacher)) or "no teacher",
        }
        if needs.feedback:
            require(
                "teacher_width",
                teacher_width,
                Whole(1),
                remedy="the teacher reads feedback",
            )
            settings |= {
                "teacher_width": cast(int, teacher_width),
                "score": needs.score or "all",
            }
        stream: BatchStream[Problem] | None = None
        if sampling is not None:
            settings |= {"sampling": repr(sampling)}
            stream = PassRateStream(
                problems, batch_size=problems_per_step, seed=seed, sampling=sampling
            )
        if after is not None:
            stream = after.stream
        super().__init__(
            problems,
            pipeline.tokenizer,
            pipeline.format,
            batch_size=problems_per_step,
            seed=seed,
            stream=stream,
            group_size=group_size,
            updates_per_rollout=updates_per_rollout,
            staleness=staleness,
            prompt_width=pipeline.prompt_width,
            **settings,
        )
        if after is not None:
            _require_same_problems(after.data, self.data)
        self._pipeline = pipeline
        self._needs = needs
        self._gap = gap
        self._teacher_width = teacher_width if needs.feedback else None
        self._group_size = group_size
        self._updates = updates_per_rollout
        self._after = after
        self._problems = problems
        self._staleness = staleness
        self._iterations = iterations
        self._begun = 0
        """Rollouts that were sampled, or are."""
        self._flights: deque[Pending] = deque()
        """Those that no iteration has had."""
        self._advantage = needs.advantage and jax.jit(_ADVANTAGES[needs.advantage])

    def next(self, state: TrainState, timer: StageTimer) -> StepData:
        """Attempts at the next problems, of the policy of `staleness` iterations ago.

        Metrics: those of `rollout_metrics`, `LogprobGap.measure`, `feedback_metrics`
        and `rollout_batch`; rollout/staleness (optimizer steps since an attempt was
        sampled); where sampling runs ahead, rollout/queue (groups that judge or writer
        of this process still have when an iteration wants its own).
        """
        if self._after is not None:
            self._after.drop()
            self._after = None
        known, step = self._counts(), int(jax.device_get(state.step))
        rollout, of_flight = self._rollout(state, step, timer)
        age = sum(step - each.episode.version for each in rollout.trajectories)
        with timer.stage("data"):
            of_sampling = self._observe(rollout, known)
            advantages, of_advantages = self._advantages(rollout)
            notes = [each.feedback for each in rollout.trajectories]
            of_feedback = feedback_metrics(notes) if self._needs.feedback else {}
            batch, of_batch = rollout_batch(
                rollout,
                self._pipeline.tokenizer,
                advantages=advantages,
                old_logprobs=self._needs.old_logprobs,
                teacher_width=self._teacher_width,
                score=self._needs.score or "all",
                wrong_feedback="wrong_feedback" in self._needs.teacher,
                format=self._pipeline.format,
            )
        return StepData(
            batches=self._split(batch),
            metrics=union(
                {"rollout/staleness": Mean(age, len(rollout.trajectories))},
                rollout_metrics(rollout),
                of_flight,
                of_sampling,
                of_advantages,
                of_feedback,
                of_batch,
            ),
            rollout=rollout,
        )

    def get_state(self) -> dict[str, Any]:
        """Position in the data, which data, and what was sampled ahead of it."""
        ahead = {"begun": self._begun, "flights": list(self._flights)}
        return {**super().get_state(), "ahead": ahead}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from a position that `get_state` gave.

        Raises:
          CheckpointError: it is a position in other data.
        """
        super().set_state(state)
        self.drop()
        self._begun = state["ahead"]["begun"]
        flights = state["ahead"]["flights"]
        by_content = {fingerprint([each]): each for each in self._problems}
        self._flights = deque(
            each
            if isinstance(each, Pending)
            else self._pipeline.resume(
                each,
                by_content,
                group_size=self._group_size,
                comment=self._needs.feedback,
                number=number,
            )
            for number, each in enumerate(flights, self._begun - len(flights))
        )

    def drop(self) -> None:
        """Gives up what was sampled ahead: nobody trains on it any more."""
        while self._flights:
            self._flights.pop().cancel()

    def skip(self, iterations: int) -> None:
        """See `ResumableSource.skip`."""
        super().skip(iterations)
        self._begun += iterations

    def _rollout(
        self, state: TrainState, step: int, timer: StageTimer
    ) -> tuple[Rollout, Metrics]:
        """The oldest that is there, and what is to be said of the newest."""
        if not self._staleness:
            rollout = self._begin(state, step, 0, timer).result()
            if self._gap is None:
                return rollout, {}
            with timer.stage("data"):
                return rollout, self._gap.measure(state.policy, rollout)
        of_gap: Metrics = {}
        with timer.stage("sample"):
            for number in range(1 + self._staleness - len(self._flights)):
                if self._begun == self._iterations:
                    break
                pending = self._begin(state, step, number, None)
                self._flights.append(pending)
                if self._gap is not None:
                    # Later these weights are gone.
                    sampled = pending.sampled(self._gap_groups(self._gap))
                    of_gap = self._gap.measure(state.policy, sampled)
        queue = sum(pending.unfinished for pending in self._flights)
        with timer.stage("wait"):
            rollout = self._flights.popleft().result()
        return rollout, union(of_gap, {"rollout/queue": Mean(queue, 1)})

    def _begin(
        self, state: TrainState, step: int, number: int, timer: StageTimer | None
    ) -> Pending:
        """A rollout of the current policy, one of perhaps several at this step."""
        key = jax.random.fold_in(state.key, state.step)
        self._begun += 1
        pending = self._pipeline.begin(
            state.policy,
            next(self.stream),
            jax.random.fold_in(key, number) if number else key,
            group_size=self._group_size,
            version=step,
            comment=self._needs.feedback,
            timer=timer,
            number=self._begun - 1,
        )
        # What comes next on the devices is the step, which may need them whole.
        self._pipeline.sampler.rest()
        return pending

    def _gap_groups(self, gap: LogprobGap) -> int:
        """Groups that hold the attempts which it reads."""
        return -(-gap.rows(self._attempts) // self._group_size)

    def _counts(self) -> SampleCounts | None:
        """What is left out of the draws; None where all problems are drawn alike."""
        stream = self.stream
        return stream.counts if isinstance(stream, PassRateStream) else None

    def _observe(self, rollout: Rollout, before: SampleCounts | None) -> Metrics:
        """Takes note of the pass rates; says what is left out of the draws now.

        Metrics: sampling/solved, sampling/unsolved (shares of the problems, left out as
        always and as never solved), sampling/retried, sampling/filled (shares of the
        places of the iteration, given to problems left out, see `SampleCounts`).
        """
        stream = self.stream
        if not isinstance(stream, PassRateStream) or before is None:
            return {}
        for group in rollout.groups:
            judged = [each.judgement for each in group if not each.judgement.missing]
            stream.observe(
                group[0].problem,
                passed=sum(judgement.passed for judgement in judged),
                judged=len(judged),
            )
        now, places = stream.counts, len(rollout.groups)
        return {
            "sampling/solved": Mean(now.solved, now.problems),
            "sampling/unsolved": Mean(now.unsolved, now.problems),
            "sampling/retried": Mean(now.retried - before.retried, places),
            "sampling/filled": Mean(now.filled - before.filled, places),
        }

    def _advantages(
        self, rollout: Rollout
    ) -> tuple[Float32[np.ndarray, "P G"] | None, Metrics]:
        """Of each attempt in its group, where a term reads them."""
        if self._advantage is None:
            return None, {}
        groups = (-1, self._group_size)
        return jax.device_get(
            self._advantage(
                jax.device_put(rollout.rewards.reshape(groups)),
                jax.device_put(rollout.known.reshape(groups)),
            )
        )

    def _split(self, batch: Batch) -> list[Batch]:
        """Interleaved parts of a batch, one for each optimizer step."""
        return [
            jax.tree.map(operator.itemgetter(slice(start, None, self._updates)), batch)
            for start in range(self._updates)
        ]


def rollout_metrics(rollout: Rollout) -> Metrics:
    """Statistics of sampled attempts.

    Metrics: reward/mean (over known rewards), rollout/entropy (nats per sampled token),
    rollout/length (tokens), rollout/turns (of the policy), rollout/calls (of tools),
    rollout/finished (share), rollout/answerless (share of the sampled attempts that
    hold no answer), rollout/live_groups (share of groups with unequal known rewards),
    rollout/overlong_prompts (share of attempts not sampled), rollout/broken_statements
    (share of attempts), verdict/<status> (shares of the sampled attempts that Lean was
    asked about).
    """
    sampled = [each for each in rollout.trajectories if each.sampled]
    made, size = len(sampled), len(rollout.trajectories)
    responses = rollout.responses
    known_entropy = responses.entropy[responses.mask & ~np.isnan(responses.entropy)]
    verdicts = [each.judgement.verdict for each in sampled]
    judged = [verdict for verdict in verdicts if verdict is not None]
    statuses = [verdict.status for verdict in judged]
    broken = sum(
        each.judgement.verdict is not None and each.judgement.verdict.broken_statement
        for each in rollout.trajectories
    )
    answerless = sum(each.judgement.answerless for each in sampled)
    live = [
        len({each.judgement.reward for each in group} - {None}) > 1
        for group in rollout.groups
    ]
    return {
        "reward/mean": Mean(
            float(rollout.rewards[rollout.known].sum()), int(rollout.known.sum())
        ),
        "rollout/entropy": Mean(float(known_entropy.sum()), known_entropy.size),
        "rollout/length": Mean(int(responses.mask.sum()), made),
        "rollout/turns": Mean(sum(each.episode.own_turns for each in sampled), made),
        "rollout/calls": Mean(
            sum(len(each.episode.observations) for each in sampled), made
        ),
        "rollout/finished": Mean(sum(each.episode.finished for each in sampled), made),
        "rollout/answerless": Mean(answerless, made),
        "rollout/live_groups": Mean(sum(live), len(live)),
        "rollout/overlong_prompts": Mean(size - made, size),
        "rollout/broken_statements": Mean(broken, size),
        **{
            f"verdict/{status.value}": Mean(statuses.count(status), len(judged))
            for status in Status
        },
    }


def _require_same_problems(before: dict[str, Any], data: dict[str, Any]) -> None:
    """Refuses to go on after a source of other problems, or with other draws.

    Raises:
      ConfigError: it is one.
    """
    for name in ("content of the rows", "batch_size", "seed", "sampling"):
        if before.get(name) != data.get(name):
            raise ConfigError(
                f"expected a source after one of the same {name}, got "
                f"{before.get(name)!r} before and {data.get(name)!r} now: give both "
                "the same problems, problems_per_step, seed and sampling"
            )
