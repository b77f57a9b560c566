"""Tables of the training of lines: verdicts, time, guards, all metrics."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fdjax.plots.lines import Line

__all__ = ["guard_events", "last_metrics", "stage_times", "status_counts"]

_SPARKLINE = (90.0, 22.0)
_EVENTS = 200

Row = Mapping[str, Any]


def status_counts(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Attempts by verdict: of each line's evaluation, and of the samples kept."""
    rows = []
    for part, count in (("evaluation", _evaluated), ("training", _sampled)):
        for line in lines:
            counts = count(line)
            if counts:
                total = sum(counts.values())
                rows.append(
                    {"line": line, "part": part, "counts": counts, "total": total}
                )
    return rows


def _evaluated(line: Line) -> Counter[str]:
    counts: Counter[str] = Counter()
    for run in line.run.parts:
        for arm in run.evaluation.get("arms", []):
            if arm["arm"] == line.arm:
                counts.update(arm.get("statuses") or {})
    return counts


def _sampled(line: Line) -> Counter[str]:
    return Counter(
        row["status"]
        for run in line.run.parts
        for row in run.samples
        # Another judge than Lean gives no status.
        if row["arm"] == line.arm and row["status"] is not None
    )


def stage_times(lines: Sequence[Line]) -> dict[str, Any]:
    """Seconds of each stage, of an iteration and of all; several seeds are pooled.

    Returns:
      `stages`, their names; `rows`, each with `line`, `seconds` of each stage, their
      `total`, `iterations`, and `iteration`: the median over the rows of the seconds
      of an iteration.
    """
    rows = []
    for line in lines:
        seconds: dict[str, float] = {}
        iterations, each = 0.0, []
        for run in line.metrics:
            timed = [(row, found) for row in run if (found := _stages(row))]
            lengths = _lengths([row for row, _ in timed])
            for (_, found), length in zip(timed, lengths, strict=True):
                for stage, spent in found.items():
                    seconds[stage] = seconds.get(stage, 0.0) + spent
                each.append(sum(found.values()) / length)
                iterations += length
        if each:
            rows.append(
                {
                    "line": line,
                    "seconds": seconds,
                    "total": sum(seconds.values()),
                    "iterations": round(iterations),
                    "iteration": float(np.median(each)),
                }
            )
    stages = dict.fromkeys(stage for row in rows for stage in row["seconds"])
    return {"stages": list(stages), "rows": rows}


def _stages(row: Row) -> dict[str, float]:
    return {
        key.removeprefix("time/").removesuffix("_s"): value
        for key, value in row.items()
        if key.startswith("time/") and key.endswith("_s") and value is not None
    }


def _lengths(rows: Sequence[Row]) -> list[float]:
    """Iterations of each row: those since the row before.

    The first row of a phase that begins at another's end counts as the second does.
    """
    steps = [row["step"] for row in rows]
    lengths = [max(1.0, after - before) for before, after in pairwise(steps)]
    first = lengths[0] if lengths else 1.0
    return [first, *lengths] if rows else []


def guard_events(lines: Sequence[Line]) -> dict[str, Any]:
    """What guards saw and did.

    Returns:
      `counts`, each with `line`, `guard`, `action`, `count` and `first` and `last`
      step; and `rows`, the first 200 events, each with its `line`.
    """
    events = [(line, row) for line in lines for row in line.events]
    groups: dict[tuple[int, str, str], list[tuple[Line, Row]]] = {}
    for place, line in enumerate(lines):
        for row in line.events:
            key = (place, str(row["guard"]), str(row.get("action") or "–"))
            groups.setdefault(key, []).append((line, row))
    counts = [
        {
            "line": found[0][0],
            "guard": guard,
            "action": action,
            "count": len(found),
            "first": min(row["step"] for _, row in found),
            "last": max(row["step"] for _, row in found),
        }
        for (_, guard, action), found in groups.items()
    ]
    rows = [{"line": line, **row} for line, row in events[:_EVENTS]]
    return {"counts": counts, "rows": rows, "total": len(events)}


def last_metrics(lines: Sequence[Line]) -> dict[str, Any]:
    """The last value and the course of every metric that is not a time.

    Of several seeds, those of the first.
    """
    columns = [(line, line.metrics[0]) for line in lines if line.metrics]
    courses = [_courses(rows) for _, rows in columns]
    keys = sorted({key for course in courses for key in course})
    rows = [
        {
            "key": key,
            "cells": [
                {"value": course[key][-1][1], "line": _sparkline(course[key])}
                if key in course
                else None
                for course in courses
            ],
        }
        for key in keys
    ]
    return {"lines": [line for line, _ in columns], "rows": rows, "size": _SPARKLINE}


def _courses(rows: Sequence[Row]) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of each metric."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for key, value in row.items():
            if key not in _PLACE and isinstance(value, int | float):
                found.setdefault(key, []).append((row["step"], value))
    return {key: points for key, points in found.items() if not key.startswith("time/")}


_PLACE = frozenset({"arm", "step", "time"})


def _sparkline(points: Sequence[tuple[float, float]]) -> str:
    """Points of an SVG polyline, at most about 60 of them."""
    points = [*points[: -1 : max(1, len(points) // 60)], points[-1]]
    steps, values = zip(*points, strict=True)
    width, height = _SPARKLINE
    span = (max(steps) - min(steps)) or 1
    low, reach = min(values), (max(values) - min(values)) or 1.0
    return " ".join(
        f"{2 + (width - 4) * (step - min(steps)) / span:.1f},"
        f"{height - 3 - (height - 6) * (value - low) / reach:.1f}"
        for step, value in points
    )
