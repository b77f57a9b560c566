"""Claims over several training seeds: intervals over problems and seeds at once."""

import numpy as np
from jaxtyping import Float64

from fdjax.errors import DataError
from fdjax.eval.claims import MINIMUM_DIFFERING, Claim, ClaimVerdict
from fdjax.eval.passk import Estimate
from fdjax.ranges import Number, Whole, require

__all__ = ["crossed_interval", "seeds_claim"]


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
    estimate = crossed_interval(measured)
    differing = int(np.sum(measured.mean(axis=0) != 0.0))
    verdict: ClaimVerdict = "not shown"
    seeds, problems = measured.shape
    detail = f"{seeds} seed{'s' * (seeds > 1)} × {problems} problems"
    if differing < MINIMUM_DIFFERING:
        detail += (
            f", {differing} of which differ (a verdict needs at least "
            f"{MINIMUM_DIFFERING})"
        )
    elif estimate.low > 0.0:
        verdict = "shown"
    elif estimate.high < 0.0:
        verdict = "contradicted"
    means = ", ".join(f"{value:+.3f}" for value in measured.mean(axis=1))
    return Claim(
        name=name,
        statement=statement,
        difference=estimate.value,
        low=estimate.low,
        high=estimate.high,
        verdict=verdict,
        detail=f"{detail}; by seed: {means}",
    )
