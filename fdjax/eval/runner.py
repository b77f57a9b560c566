"""Samples, verifies and counts: one arm on a set of theorems."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from fdjax.errors import DataError
from fdjax.eval.arms import ArmResult
from fdjax.eval.diversity import distinct_proofs, distinct_sequences, tactic_entropy
from fdjax.eval.passk import UNMEASURED, Estimate, pass_at_k
from fdjax.eval.results import TeacherResult, mean_estimate
from fdjax.ranges import Whole, require
from fdjax.records import Problem
from fdjax.rollout import Pipeline, Rollout, fit_feedback

__all__ = ["distinct_names", "evaluate_arm", "evaluate_teacher"]


def evaluate_arm(
    arm: str,
    params: Any,
    problems: Sequence[Problem],
    pipeline: Pipeline,
    key: jax.Array,
    *,
    samples: int,
    problems_per_batch: int = 16,
    on_rollout: Callable[[Rollout], None] = lambda _: None,
) -> ArmResult:
    """Counts verified and distinct proofs among `samples` attempts at each theorem.

    Args:
      arm: name for tables and files.
      params: policy parameters.
      problems: theorems; where two have one name, their places tell them apart.
      pipeline: samples and judges.
      key: typed PRNG key; equal keys draw equal samples.
      samples: attempts for each theorem.
      problems_per_batch: theorems sampled together.
      on_rollout: receives each batch of attempts, for progress and logs.

    Returns:
      Counts for each theorem; attempts without a verdict are `missing`, among them all
      attempts at a theorem whose prompt is too long or whose statement is broken.

    Raises:
      ConfigError: `samples` or `problems_per_batch` is not positive.
      DataError: there are no theorems.
    """
    require("samples", samples, Whole(1))
    require("problems_per_batch", problems_per_batch, Whole(1))
    _require_problems(problems)
    rows: dict[str, list[Any]] = {
        name: [] for name in ("successes", "missing", "proofs", "sequences", "entropy")
    }
    verified_proofs: list[str] = []
    statuses: dict[str, int] = {}
    for start in range(0, len(problems), problems_per_batch):
        batch = list(problems[start : start + problems_per_batch])
        rollout = pipeline.collect(
            params,
            batch,
            jax.random.fold_in(key, start),
            group_size=samples,
            comment=False,
        )
        for index, group in enumerate(rollout.groups):
            rows_of_group = slice(index * samples, (index + 1) * samples)
            good = [each.judgement.answer for each in group if each.judgement.passed]
            mask = rollout.responses.mask[rows_of_group]
            entropy = rollout.responses.entropy[rows_of_group]
            rows["successes"].append(len(good))
            rows["missing"].append(sum(each.judgement.missing for each in group))
            rows["proofs"].append(distinct_proofs(good))
            rows["sequences"].append(distinct_sequences(good))
            rows["entropy"].append(float(entropy.sum() / max(mask.sum(), 1)))
            verified_proofs += good
            for each in group:
                if each.judgement.verdict is not None:
                    name = each.judgement.verdict.status.value
                    statuses[name] = statuses.get(name, 0) + 1
        on_rollout(rollout)
    return ArmResult(
        arm=arm,
        theorems=distinct_names(problems),
        samples=samples,
        successes=tuple(rows["successes"]),
        missing=tuple(rows["missing"]),
        distinct_proofs=tuple(rows["proofs"]),
        policy_entropy=tuple(rows["entropy"]),
        distinct_sequences=tuple(rows["sequences"]),
        tactic_entropy=tactic_entropy(verified_proofs),
        statuses=statuses,
    )


def evaluate_teacher(
    params: Any,
    problems: Sequence[Problem],
    student: Pipeline,
    teacher: Pipeline,
    key: jax.Array,
    *,
    samples: int,
    on_rollout: Callable[[Rollout], None] = lambda _: None,
) -> TeacherResult:
    """Whether reading feedback on one's own attempts helps: pass@1 with and without.

    Each student attempt gets feedback, and one new attempt is sampled by the same
    weights with that feedback in the prompt. FD cannot work where this gains nothing.
    Where there is no feedback, or none that fits, there is nothing to measure.

    Args:
      params: policy parameters.
      problems: theorems.
      student: pipeline whose prompts hold the question.
      teacher: pipeline whose prompts are wide enough for the feedback too.
      key: typed PRNG key.
      samples: attempts for each theorem, each with its own feedback.
      on_rollout: receives the two batches of attempts.

    Raises:
      ConfigError: `samples` is not positive.
      DataError: there are no theorems.
    """
    require("samples", samples, Whole(1))
    _require_problems(problems)
    first, second = jax.random.split(key)
    plain = student.collect(params, problems, first, group_size=samples)
    on_rollout(plain)
    problems_of_attempts = [each.problem for each in plain.trajectories]
    notes = fit_feedback(
        teacher.tokenizer,
        problems_of_attempts,
        [each.feedback for each in plain.trajectories],
        width=teacher.prompt_width,
    )
    informed = teacher.collect(
        params,
        problems_of_attempts,
        second,
        group_size=1,
        feedback=notes,
        comment=False,
    )
    on_rollout(informed)

    def estimate(rollout: Rollout, counted: np.ndarray) -> Estimate:
        passed = np.array([each.judgement.passed for each in rollout.trajectories])
        wins = (passed & counted).reshape(-1, samples).sum(axis=1)
        known = counted.reshape(-1, samples).sum(axis=1)
        values = pass_at_k(wins.astype(np.int64), known.astype(np.int64), 1)
        return mean_estimate(values) or UNMEASURED

    read = np.array([note is not None for note in notes])
    return TeacherResult(
        without_feedback=estimate(plain, plain.known),
        with_feedback=estimate(informed, informed.known & read),
        theorems=len(problems),
        samples=samples,
    )


def _require_problems(problems: Sequence[Problem]) -> None:
    if not problems:
        raise DataError("expected theorems to evaluate on, got none")


def distinct_names(problems: Sequence[Problem]) -> tuple[str, ...]:
    """Names of problems [N]; with their places where two are the same.

    Many files name all of their theorems alike.
    """
    names = tuple(problem.name for problem in problems)
    if len(set(names)) == len(names):
        return names
    return tuple(f"{name} {place}" for place, name in enumerate(names, start=1))
