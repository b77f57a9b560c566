"""Claims over several training seeds: intervals over problems and seeds at once."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from fdjax.errors import DataError
from fdjax.eval.arms import ArmResult, common_theorems
from fdjax.eval.claims import (
    MINIMUM_DIFFERING,
    ArmRoles,
    Claim,
    Comparison,
    Question,
    decide,
    verdict_of,
)
from fdjax.eval.passk import UNMEASURED, Estimate
from fdjax.ranges import Number, Whole, require

__all__ = ["crossed_interval", "pooled_claims", "seeds_claim"]


def crossed_interval(
    values: Float64[np.ndarray, "S N"],
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Percentile bootstrap interval of a mean over S seeds and N problems.

    Each draw takes S seeds and N problems, both with return, and averages where they
    cross. So few seeds as people train say little of their spread: with S of them the
    share of the variance that is theirs comes out (S − 1) / S as large.

    Args:
      values: one finite value for each seed and problem.
      level: coverage asked for, between 0 and 1.
      resamples: draws; at least 1.
      seed: seed of the draws.

    Raises:
      ConfigError: level or resamples are out of range.
      DataError: values are empty or not finite.

    Reference: Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1(2), 2007.
    """
    require("level", level, Number(above=0, below=1), remedy="0.95 is usual")
    require("resamples", resamples, Whole(1), remedy="10000 is usual")
    if values.ndim != 2 or not values.size or not np.all(np.isfinite(values)):
        raise DataError(
            "expected a finite value for each seed and problem, got shape "
            f"{values.shape}, {int(np.sum(~np.isfinite(values)))} of them not finite: "
            "leave problems without a measurement out"
        )
    generator = np.random.default_rng(seed)
    of_seeds, of_problems = (
        generator.multinomial(count, [1 / count] * count, size=resamples) / count
        for count in values.shape
    )
    drawn = np.einsum("rs,sn,rn->r", of_seeds, values, of_problems, optimize=True)
    low, high = np.quantile(drawn, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Estimate(float(values.mean()), float(low), float(high))


def seeds_claim(
    name: str, statement: str, differences: Float64[np.ndarray, "S N"]
) -> Claim:
    """The claim that a paired difference is above zero, by its interval.

    Shown if the interval lies above zero, contradicted if below, and neither while
    fewer than six problems differ.

    Args:
      name: short stable name.
      statement: of what is claimed.
      differences: of each seed and problem; NaN where one of both was not measured,
        and that problem is left out.

    Raises:
      DataError: no problem was measured by all seeds.
    """
    measured = differences[:, ~np.isnan(differences).any(axis=0)]
    estimate, verdict, detail = _pooled(measured, strict=True)
    return Claim(
        name=name,
        statement=statement,
        difference=estimate.value,
        low=estimate.low,
        high=estimate.high,
        verdict=verdict,
        detail=detail,
    )


def pooled_claims(
    seeds: Sequence[Sequence[ArmResult]],
    ks: Sequence[int],
    roles: ArmRoles | None = None,
) -> tuple[Claim, ...]:
    """The claims of `evaluate_claims`, each decided once for all training seeds.

    A comparison takes the theorems that all seeds measured in both arms, and the 95 %
    interval of `crossed_interval` over seeds and theorems. The other rules are those
    of `evaluate_claims`.

    Args:
      seeds: the arms of each seed; an arm that a seed lacks is left out.
      ks: values of k that were evaluated, each at least 1.
      roles: names of the arms; the defaults of `ArmRoles` when None.

    Returns:
      The claims that the arms present allow to decide, in their order.

    Raises:
      ConfigError: `ks` is empty.
      DataError: there are no seeds.
    """
    if not seeds:
        raise DataError("expected the arms of at least one seed, got none")
    named = [{arm.arm: arm for arm in arms} for arms in seeds]

    def compare(question: Question, other: str) -> Comparison:
        pairs = [(arms[question.first], arms[other]) for arms in named]
        return _compare(question, pairs)

    return decide(set.intersection(*map(set, named)), ks, roles, compare)


def _compare(
    question: Question, pairs: Sequence[tuple[ArmResult, ArmResult]]
) -> Comparison:
    """Compare two arms of each seed on the theorems that all measured."""
    theorems = common_theorems([arm for pair in pairs for arm in pair])
    differences = np.array(
        [
            question.measure(first.select(theorems))
            - question.measure(second.select(theorems))
            for first, second in pairs
        ]
    )
    measured = differences[:, ~np.isnan(differences).any(axis=0)]
    first, second = pairs[0]
    pair = f"{first.arm} against {second.arm}"
    if not measured.size:
        nothing = f"{pair}: no theorem measured in both by all seeds"
        return Comparison(UNMEASURED, "not shown", nothing)
    estimate, verdict, detail = _pooled(measured, strict=question.strict)
    interval = f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
    return Comparison(estimate, verdict, f"{pair}: difference {interval}, {detail}")


def _pooled(differences: Float64[np.ndarray, "S N"], *, strict: bool) -> Comparison:
    """What measured differences of seeds and problems say together."""
    estimate = crossed_interval(differences)
    differing = int(np.sum(differences.mean(axis=0) != 0.0))
    seeds, problems = differences.shape
    detail = f"{seeds} seed{'s' * (seeds > 1)} × {problems} problems"
    if differing < MINIMUM_DIFFERING:
        detail += (
            f", {differing} of which differ (a verdict needs at least "
            f"{MINIMUM_DIFFERING})"
        )
    means = ", ".join(f"{value:+.3f}" for value in differences.mean(axis=1))
    verdict = verdict_of(estimate, differing, strict=strict)
    return Comparison(estimate, verdict, f"{detail}; by seed: {means}")
