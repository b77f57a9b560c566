"""Several seeds of the quickstart as one table, in Markdown."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fdjax.errors import DataError
from fdjax.eval import ArmResult, Evaluation, pooled_claims
from fdjax.plots import headline_ks

__all__ = ["seeds_table"]


def seeds_table(evaluations: Sequence[Evaluation]) -> str:
    """Mean and range over seeds of each arm's measures, then the verdicts of all seeds.

    Raises:
      DataError: the runs measured different arms, theorems or k.
    """
    first = _measured(evaluations[0])
    if any(_measured(other) != first for other in evaluations[1:]):
        raise DataError(
            "Expected runs with the same arms, theorems, samples and k, got others; "
            "compare runs that differ in their --seed only."
        )
    return "\n".join([*_arms(evaluations), "", *_claims(evaluations)])


def _arms(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    ks = headline_ks(evaluations[0].ks)
    measures: dict[str, Callable[[ArmResult], float]] = {
        **{f"pass@{k}": lambda arm, k=k: _mean(arm.pass_at_k(k)) for k in ks},
        "entropy, nats": lambda arm: _mean(arm.entropy()),
        "distinct proofs": lambda arm: float(np.mean(arm.distinct_proofs)),
    }
    yield "| arm | " + " | ".join(measures) + " |"
    yield "|---" * (len(measures) + 1) + "|"
    for place, arm in enumerate(evaluations[0].arms):
        cells = []
        for measure in measures.values():
            values = [measure(evaluation.arms[place]) for evaluation in evaluations]
            cells.append(f"{np.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})")
        yield f"| {arm.arm} | " + " | ".join(cells) + " |"


def _claims(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    arms = [evaluation.arms for evaluation in evaluations]
    for claim in pooled_claims(arms, evaluations[0].ks):
        yield f"- {claim.statement}: {claim.verdict} ({claim.detail})"


def _measured(evaluation: Evaluation) -> tuple[Any, ...]:
    """What must be the same in all runs of a table."""
    arms = [(arm.arm, arm.theorems, arm.samples) for arm in evaluation.arms]
    return evaluation.ks, arms


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values))
