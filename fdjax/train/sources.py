"""Where the batches of a step come from: reference proofs or fresh rollouts."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import grain
import jax
import numpy as np
from jaxtyping import Array, Bool, Float32
from transformers import PreTrainedTokenizerFast

from fdjax.data.pipeline import batches, fingerprint
from fdjax.data.tokenizer import settings_of
from fdjax.errors import CheckpointError, ConfigError
from fdjax.lean import Status
from fdjax.metrics import StageTimer
from fdjax.ranges import Number, Whole, require
from fdjax.records import Mean, Metrics, Problem, union
from fdjax.rollout import (
    Pipeline,
    Rollout,
    distillation_batch,
    policy_batch,
    supervised_batch,
)
from fdjax.rollout.batch import SCORE, Score
from fdjax.train.state import TrainState

__all__ = [
    "AlternatingSource",
    "DistillationSource",
    "PolicySource",
    "Source",
    "StepData",
    "SupervisedSource",
]


@dataclass(frozen=True, kw_only=True)
class StepData:
    """What one iteration trains on."""

    batches: Sequence[Any]
    """One NamedTuple of host arrays for each optimizer step."""
    metrics: Metrics
    """Statistics known before the optimizer steps."""
    rollout: Rollout | None = None
    """The attempts, when the data was sampled."""


@runtime_checkable
class Source(Protocol):
    """An endless, resumable supply of `StepData`."""

    def next(self, state: TrainState, timer: StageTimer) -> StepData:
        """Data of the next iteration, sampled from `state.params` if at all."""
        ...

    def get_state(self) -> dict[str, Any]:
        """JSON-like position of the data iterator."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from a position that `get_state` gave.

        Raises:
          CheckpointError: it is a position in other data.
        """
        ...


class _Resumable:
    """A source that draws from one Grain iterator."""

    def __init__(
        self,
        items: Sequence[Any],
        tokenizer: PreTrainedTokenizerFast,
        *,
        batch_size: int,
        seed: int,
        **settings: int | str,
    ):
        """Begins at the first batch.

        Args:
          items: rows, JSON values or dataclasses of such.
          tokenizer: of their texts.
          batch_size: rows in a batch.
          seed: of their order.
          settings: whatever else decides what a row becomes.
        """
        self._items: grain.DatasetIterator[list[Any]] = batches(
            items, batch_size=batch_size, seed=seed
        )
        self._data = {
            "source": type(self).__name__,
            "rows": len(items),
            "content of the rows": fingerprint(items),
            "tokenizer": fingerprint([settings_of(tokenizer)]),
            "batch_size": batch_size,
            "seed": seed,
            **settings,
        }
        # NumPy's numbers are settings, too, but no JSON.
        self._data = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in self._data.items()
        }

    def get_state(self) -> dict[str, Any]:
        """Position in the data, and which data."""
        return {"data": self._data, "position": self._items.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from a position that `get_state` gave.

        Raises:
          CheckpointError: it is a position in other data.
        """
        _check_same_data(state, self._data)
        self._items.set_state(state["position"])

    def skip(self, iterations: int) -> None:
        """Leaves out the data of the next `iterations`.

        Raises:
          ConfigError: their number is negative.
        """
        require("iterations", iterations, Whole(0))
        for _ in range(iterations):
            next(self._items)


class SupervisedSource(_Resumable):
    """Rows (problem, feedback or None, proof) for SFT, one optimizer step each.

    Raises:
      ConfigError: a size or the seed is out of range, or there are fewer rows.
    """

    def __init__(
        self,
        rows: Sequence[tuple[Problem, str | None, str]],
        tokenizer: PreTrainedTokenizerFast,
        *,
        batch_size: int,
        seed: int,
        prompt_width: int,
        response_width: int,
    ):
        require("prompt_width", prompt_width, Whole(1))
        require("response_width", response_width, Whole(1))
        self._widths = {"prompt_width": prompt_width, "response_width": response_width}
        super().__init__(
            rows, tokenizer, batch_size=batch_size, seed=seed, **self._widths
        )
        self._tokenizer = tokenizer

    def next(self, state: TrainState, timer: StageTimer) -> StepData:
        """The next rows in shuffled order."""
        del state
        with timer.stage("data"):
            batch, metrics = supervised_batch(
                self._tokenizer, next(self._items), **self._widths
            )
        return StepData(batches=[batch], metrics=metrics)


class AlternatingSource:
    """Two sources in turn, the second one in a fixed share of the iterations.

    Raises:
      ConfigError: the share is not in [0, 1].
    """

    def __init__(self, first: Source, second: Source, *, share: float):
        require("share", share, Number(least=0, most=1))
        self._sources = (first, second)
        self._share = share
        self._turn = 0
        self._data = {"source": type(self).__name__, "share": float(share)}

    def next(self, state: TrainState, timer: StageTimer) -> StepData:
        """Data of whichever source has the turn."""
        before, after = (
            int(turn * self._share) for turn in (self._turn, self._turn + 1)
        )
        self._turn += 1
        return self._sources[after - before].next(state, timer)

    def get_state(self) -> dict[str, Any]:
        """Both positions, the turn and the share that decides whose turn it is."""
        first, second = (source.get_state() for source in self._sources)
        return {
            "data": self._data,
            "turn": self._turn,
            "first": first,
            "second": second,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from a position that `get_state` gave.

        Raises:
          CheckpointError: it is a position in other data, or in other turns.
        """
        _check_same_data(state, self._data)
        self._turn = int(state["turn"])
        self._sources[0].set_state(state["first"])
        self._sources[1].set_state(state["second"])


class _RolloutSource(_Resumable):
    """Groups of fresh attempts at the next problems.

    Raises:
      ConfigError: a size or the seed is out of range, there are fewer problems, or the
        attempts do not divide among the updates.
    """

    smallest_group = 1
    """Attempts at a problem that the objective needs."""

    def __init__(
        self,
        problems: Sequence[Problem],
        pipeline: Pipeline,
        *,
        problems_per_step: int,
        group_size: int,
        updates_per_rollout: int,
        seed: int,
        **settings: int | str,
    ):
        require(
            f"problems_per_step of {len(problems)} problems",
            problems_per_step,
            Whole(1, len(problems)),
        )
        require("group_size", group_size, Whole(self.smallest_group))
        require("updates_per_rollout", updates_per_rollout, Whole(1))
        attempts = problems_per_step * group_size
        if attempts % updates_per_rollout:
            raise ConfigError(
                "expected updates_per_rollout to divide problems_per_step × group_size "
                f"= {attempts}, got {updates_per_rollout}: each optimizer step takes "
                "as many attempts"
            )
        super().__init__(
            problems,
            pipeline.tokenizer,
            batch_size=problems_per_step,
            seed=seed,
            group_size=group_size,
            updates_per_rollout=updates_per_rollout,
            prompt_width=pipeline.prompt_width,
            **settings,
        )
        self._pipeline = pipeline
        self._group_size = group_size
        self._updates = updates_per_rollout

    def _collect(self, state: TrainState, timer: StageTimer) -> Rollout:
        return self._pipeline.collect(
            state.params,
            next(self._items),
            jax.random.fold_in(state.key, state.step),
            group_size=self._group_size,
            version=int(jax.device_get(state.step)),
            timer=timer,
        )

    def _split(self, batch: Any) -> list[Any]:
        """Interleaved parts of a batch, one for each optimizer step."""
        return [
            jax.tree.map(operator.itemgetter(slice(start, None, self._updates)), batch)
            for start in range(self._updates)
        ]


class PolicySource(_RolloutSource):
    """Attempts with group-relative advantages, for GRPO."""

    smallest_group = 2

    def __init__(
        self,
        problems: Sequence[Problem],
        pipeline: Pipeline,
        *,
        advantage: Callable[
            [Float32[Array, "P G"], Bool[Array, "P G"]],
            tuple[Float32[Array, "P G"], Metrics],
        ],
        **settings: int,
    ):
        super().__init__(problems, pipeline, **settings)
        self._advantage = jax.jit(advantage)

    def next(self, state: TrainState, timer: StageTimer) -> StepData:
        """Attempts of the current policy at the next problems."""
        rollout = self._collect(state, timer)
        groups = (-1, self._group_size)
        advantages, metrics = jax.device_get(
            self._advantage(
                jax.device_put(rollout.rewards.reshape(groups)),
                jax.device_put(rollout.known.reshape(groups)),
            )
        )
        batch = policy_batch(rollout, advantages)
        return StepData(
            batches=self._split(batch),
            metrics=union(rollout_metrics(rollout), metrics),
            rollout=rollout,
        )


class DistillationSource(_RolloutSource):
    """Attempts with feedback for the teacher, for FD."""

    def __init__(
        self,
        problems: Sequence[Problem],
        pipeline: Pipeline,
        *,
        teacher_width: int,
        score: Score,
        **settings: int,
    ):
        require("teacher_width", teacher_width, Whole(1))
        require("score", score, SCORE)
        super().__init__(
            problems, pipeline, teacher_width=teacher_width, score=score, **settings
        )
        self._teacher_width = teacher_width
        self._score: Score = score

    def next(self, state: TrainState, timer: StageTimer) -> StepData:
        """Attempts of the current policy at the next problems."""
        rollout = self._collect(state, timer)
        with timer.stage("data"):
            batch, metrics = distillation_batch(
                rollout,
                self._pipeline.tokenizer,
                teacher_width=self._teacher_width,
                score=self._score,
            )
        return StepData(
            batches=self._split(batch),
            metrics=union(rollout_metrics(rollout), metrics),
            rollout=rollout,
        )


def _check_same_data(state: dict[str, Any], data: dict[str, Any]) -> None:
    """Makes sure that a saved position is one in these data."""
    saved = state.get("data", {})
    differences = [
        f"{name} was {saved.get(name, 'not said')}, now {data.get(name, 'not said')}"
        for name in {**saved, **data}
        if saved.get(name) != data.get(name)
    ]
    if differences:
        raise CheckpointError(
            "Expected the data that the checkpoint was trained on, got others: "
            f"{'; '.join(differences)}. A position means nothing in other data: give "
            "the same rows in the same order and the same settings, or train anew in "
            "another folder."
        )


def rollout_metrics(rollout: Rollout) -> Metrics:
    """Statistics of sampled attempts.

    Metrics: reward/mean (over known rewards), rollout/entropy (nats per sampled token),
    rollout/length (tokens), rollout/finished (share), rollout/live_groups (share of
    groups with unequal known rewards), rollout/overlong_prompts (share of attempts not
    sampled), rollout/broken_statements (share of attempts), verdict/<status> (shares of
    the sampled attempts that Lean was asked about).
    """
    sampled = [each for each in rollout.trajectories if each.sampled]
    made, size = len(sampled), len(rollout.trajectories)
    responses = rollout.responses
    verdicts = [each.judgement.verdict for each in sampled]
    judged = [verdict for verdict in verdicts if verdict is not None]
    statuses = [verdict.status for verdict in judged]
    broken = sum(
        each.judgement.verdict is not None and each.judgement.verdict.broken_statement
        for each in rollout.trajectories
    )
    live = [
        len({each.judgement.reward for each in group} - {None}) > 1
        for group in rollout.groups
    ]
    return {
        "reward/mean": Mean(
            float(rollout.rewards[rollout.known].sum()), int(rollout.known.sum())
        ),
        "rollout/entropy": Mean(
            float(responses.entropy.sum()), int(responses.mask.sum())
        ),
        "rollout/length": Mean(int(responses.mask.sum()), made),
        "rollout/finished": Mean(sum(each.finished for each in sampled), made),
        "rollout/live_groups": Mean(sum(live), len(live)),
        "rollout/overlong_prompts": Mean(size - made, size),
        "rollout/broken_statements": Mean(broken, size),
        **{
            f"verdict/{status.value}": Mean(statuses.count(status), len(judged))
            for status in Status
        },
    }
