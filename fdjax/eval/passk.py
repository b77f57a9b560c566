"""Unbiased pass@k per theorem, and bootstrap intervals over theorems."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Integer

from fdjax.errors import DataError
from fdjax.ranges import Number, Whole, require

__all__ = [
    "UNMEASURED",
    "Estimate",
    "bootstrap_interval",
    "paired_difference",
    "pass_at_k",
]

# Resampled values held at once, so that memory does not grow with the resamples.
_CHUNK_VALUES = 1 << 21


class Estimate(NamedTuple):
    """A statistic of a set of theorems with its bootstrap interval."""

    value: float
    """The statistic of the values themselves."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""


UNMEASURED = Estimate(math.nan, math.nan, math.nan)
"""Of a set without measured theorems."""


def pass_at_k(
    successes: Integer[np.ndarray, " N"], samples: Integer[np.ndarray, " N"], k: int
) -> Float64[np.ndarray, " N"]:
    """Chance that k of a theorem's n samples, drawn without return, hold a proof.

    1 − C(n−c, k) / C(n, k), as the product 1 − Π_{i=0}^{k−1} (n−c−i) / (n−i), whose
    factors lie in [0, 1]: nothing overflows, however large n and k are.

    Args:
      successes: c, verified samples of each theorem; 0 ≤ c ≤ n.
      samples: n, samples of each theorem that have a verdict.
      k: attempts allowed; at least 1.

    Returns:
      One value in [0, 1] for each theorem; NaN where n < k, for which no unbiased
      estimate exists.

    Raises:
      ConfigError: k is below 1.
      DataError: successes are negative or exceed the samples, or are of others.

    Reference: arXiv:2107.03374, eq. 1.
    """
    require("k", k, Whole(1), remedy="ask for pass@1 or more")
    if np.shape(successes) != np.shape(samples):
        raise DataError(
            "expected successes and samples of as many theorems, got shapes "
            f"{np.shape(successes)} and {np.shape(samples)}"
        )
    if np.any(successes < 0) or np.any(successes > samples):
        raise DataError(
            "expected 0 <= successes <= samples for every theorem, got successes "
            f"{successes.tolist()} of {samples.tolist()}: count only judged samples"
        )
    failures = (samples - successes).astype(np.float64)
    total = samples.astype(np.float64)
    measurable = total >= k
    miss = np.ones_like(total)
    for drawn in range(k):
        left = np.where(measurable, total - drawn, 1.0)
        miss *= np.maximum(failures - drawn, 0.0) / left
    return np.where(measurable, 1.0 - miss, np.nan)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean of each row."""
    return np.mean(values, axis=-1)


def bootstrap_interval(
    values: Float64[np.ndarray, " N"],
    statistic: Callable[[np.ndarray], np.ndarray] = _mean,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Percentile bootstrap interval of a statistic over theorems.

    Theorems are drawn with return. The interval says how the statistic would move
    with other theorems of the same kind; it knows nothing of training seeds.

    Args:
      values: one finite value for each theorem; at least one.
      statistic: maps `[R, N]` resampled values to `[R]`, reducing the last axis.
      level: coverage asked for, between 0 and 1.
      resamples: bootstrap draws R; at least 1.
      seed: seed of the draws; the same seed gives the same interval.

    Returns:
      The statistic of `values` and the two ends of its interval.

    Raises:
      ConfigError: level or resamples are out of range.
      DataError: values are empty or not finite.

    Reference: Efron, Annals of Statistics 7(1), 1979 (percentile method).
    """
    require("level", level, Number(above=0, below=1), remedy="0.95 is usual")
    require("resamples", resamples, Whole(1), remedy="10000 is usual")
    require("seed", seed, Whole(0))
    if values.ndim != 1 or values.size == 0 or not np.all(np.isfinite(values)):
        raise DataError(
            f"expected one finite value for each theorem, got shape {values.shape}, "
            f"{int(np.sum(~np.isfinite(values)))} of them not finite: leave theorems "
            "without a measurement out"
        )
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK_VALUES // values.size)
    drawn = np.concatenate(
        [
            statistic(
                values[
                    generator.integers(
                        values.size, size=(min(rows, resamples - start), values.size)
                    )
                ]
            )
            for start in range(0, resamples, rows)
        ]
    )
    low, high = np.quantile(drawn, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Estimate(float(statistic(values[None])[0]), float(low), float(high))


def paired_difference(
    first: Float64[np.ndarray, " N"],
    second: Float64[np.ndarray, " N"],
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Mean of `first − second` over the same theorems, with its interval.

    Both arms are resampled together, theorem by theorem, so that the spread of
    difficulty between theorems cancels.

    Args:
      first: values of one arm; NaN where it has no measurement.
      second: values of the other arm, the theorems in the same order.
      level: coverage asked for, between 0 and 1.
      resamples: bootstrap draws; at least 1.
      seed: seed of the draws.

    Returns:
      The mean difference and its interval over the theorems that both arms measured.

    Raises:
      ConfigError: level or resamples are out of range.
      DataError: the arms have other theorems, or none is measured in both.
    """
    if first.shape != second.shape:
        raise DataError(
            "expected the same theorems of both arms, got values of shapes "
            f"{first.shape} and {second.shape}"
        )
    difference = first - second
    return bootstrap_interval(
        difference[~np.isnan(difference)], _mean, level, resamples, seed
    )
