"""How a quantity evolves over the steps, with an interval that says of what."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from fdjax.plots.lines import Line

__all__ = ["Trend", "metric_trend", "trend"]

_SMOOTH_FROM = 24
_PLACES = 200
_NORMAL = 1.959964


class Trend(NamedTuple):
    """A course over I steps."""

    steps: Float64[np.ndarray, " I"]
    values: Float64[np.ndarray, " I"]
    low: Float64[np.ndarray, " I"] | None = None
    """Lower end of the interval; None where there is none."""
    high: Float64[np.ndarray, " I"] | None = None
    rows: tuple[np.ndarray, np.ndarray] | None = None
    """Steps and values behind a moving mean."""


def metric_trend(line: Line, key: str) -> Trend | None:
    """The course of a metric; None where the line has no row with it."""
    return trend(
        [
            {row["step"]: row[key] for row in rows if _is_number(row.get(key))}
            for rows in line.metrics
        ]
    )


def trend(runs: Sequence[Mapping[int, float]]) -> Trend | None:
    """The course of one run, or of several seeds together.

    From 24 rows on, values are moving means over a twentieth of the rows, nine at
    least. The interval of one run is the mean's 95 % confidence interval from the rows
    in its window: it says how far the iterations scatter, nothing of other seeds. That
    of several seeds reaches from the lowest to the highest, at the steps that all have.

    Args:
      runs: step to value, of each seed; those without rows are left out.

    Returns:
      At most 200 places of the course; None where there are no rows.
    """
    courses = [dict(sorted(course.items())) for course in runs if course]
    if not courses:
        return None
    shared = [step for step in courses[0] if all(step in one for one in courses)]
    if not shared:  # seeds that are logged at different steps
        courses, shared = courses[:1], list(courses[0])
    steps = np.array(shared, np.float64)
    values = np.array([[one[step] for step in shared] for one in courses], np.float64)
    smooth = len(steps) >= _SMOOTH_FROM
    means, reach = values, None
    if smooth:
        means, reach = _moving(values, max(9, len(steps) // 20))
    kept = np.unique(np.linspace(0, len(steps) - 1, _PLACES).round().astype(int))
    if len(courses) > 1:
        means = means[:, kept]
        return Trend(steps[kept], means.mean(0), means.min(0), means.max(0))
    mean = means[0, kept]
    if reach is None:
        return Trend(steps, values[0])
    reach = reach[0, kept]
    return Trend(steps[kept], mean, mean - reach, mean + reach, (steps, values[0]))


def _moving(
    values: Float64[np.ndarray, "S I"], window: int
) -> tuple[Float64[np.ndarray, "S I"], Float64[np.ndarray, "S I"]]:
    """Means over centred windows that shrink at both ends, and their reach.

    The reach is half of the 95 % confidence interval by Student's distribution.
    """
    half, places = window // 2, np.arange(values.shape[1])
    start = np.maximum(places - half, 0)
    stop = np.minimum(places + half + 1, values.shape[1])
    count = stop - start
    centre = values.mean(axis=1, keepdims=True)

    def windowed(summand: np.ndarray) -> np.ndarray:
        sums = np.pad(np.cumsum(summand, axis=1), ((0, 0), (1, 0)))
        return sums[:, stop] - sums[:, start]

    mean = windowed(values - centre) / count
    squares = windowed((values - centre) ** 2) - count * mean**2
    error = np.sqrt(np.maximum(squares, 0.0) / (count * (count - 1)))
    return mean + centre, _student(count - 1) * error


def _student(freedom: np.ndarray) -> np.ndarray:
    """The 97.5 % quantile of Student's distribution, to 2 % from 4 degrees on."""
    z = _NORMAL
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
