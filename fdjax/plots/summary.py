"""The table at the top of a comparison: where each line stands."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fdjax.plots.lines import Line
from fdjax.plots.pass_at_k import pass_at_k_trend
from fdjax.plots.tables import headline_ks
from fdjax.plots.trend import Trend, metric_trend

__all__ = ["Ending", "summary"]


class Ending(NamedTuple):
    """Where a course ends, with its interval; None where there is none."""

    value: float
    low: float | None
    high: float | None
    kind: str
    """As `share` or `nats` is shown."""


def summary(lines: Sequence[Line]) -> dict[str, Any]:
    """Iterations, attempts, and the end of the courses that matter most.

    Returns:
      `titles` of the columns that some line has; `rows`, each with `line`, `steps`,
      `attempts` and a cell for each title, None where the line has none.
    """
    rows = [
        {
            "line": line,
            "seeds": len(line.metrics),
            "steps": max((rows[-1]["step"] for rows in line.metrics), default=None),
            "attempts": sum(
                sample["arm"] == line.arm
                for part in line.run.parts
                for sample in part.samples
            ),
            "cells": dict(_endings(line)),
        }
        for line in lines
    ]
    rows = [row for row in rows if row["steps"] is not None or row["cells"]]
    titles = dict.fromkeys(title for row in rows for title in row["cells"])
    titles = sorted(titles, key=_order)
    for row in rows:
        row["cells"] = [row["cells"].get(title) for title in titles]
    return {"titles": titles, "rows": rows}


_METRICS = (
    ("reward", "reward/mean", "nats"),
    ("entropy, nats", "rollout/entropy", "nats"),
    ("tokens", "rollout/length", "count"),
)


def _endings(line: Line) -> Iterator[tuple[str, Ending]]:
    for title, key, kind in _METRICS:
        course = metric_trend(line, key)
        if course is not None:
            yield title, _ending(course, -1, kind)
    course = pass_at_k_trend(line)
    if course is not None:
        ks = [int(k) for k in course.steps]
        for k in headline_ks(ks):
            yield f"pass@{k}, %", _ending(course, ks.index(k), "share")


def _order(title: str) -> tuple[bool, int]:
    """Metrics as they come, then pass@k by k."""
    names = [name for name, *_ in _METRICS]
    if title in names:
        return False, names.index(title)
    return True, int(title.removeprefix("pass@").removesuffix(", %"))


def _ending(course: Trend, place: int, kind: str) -> Ending:
    low, high = (
        None if end is None or np.isnan(end[place]) else float(end[place])
        for end in (course.low, course.high)
    )
    return Ending(float(course.values[place]), low, high, kind)
