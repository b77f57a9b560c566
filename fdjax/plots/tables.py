"""Tables of the report, computed from a run's files."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fdjax.plots.run_files import RunFiles

__all__ = [
    "claim_rows",
    "headline",
    "headline_ks",
    "last_metrics",
    "provenance",
    "settings",
    "stage_times",
    "status_counts",
]

_HEADLINE_KS = frozenset({1, 4, 16, 64})
_SPARKLINE = (90.0, 22.0)


def headline_ks(ks: Sequence[int]) -> list[int]:
    """The k whose pass@k stand in a table: 1, 4, 16, 64 and the largest.

    >>> headline_ks([1, 2, 4, 8, 16, 32])
    [1, 4, 16, 32]

    Args:
      ks: values of k that were measured, increasing.
    """
    return [k for k in ks if k in _HEADLINE_KS or k == ks[-1]]


def headline(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The summary table: a row for each arm, a column for each measurement.

    pass@1, 4, 16, 64 as far as they were measured and the largest k, entropy and
    distinct proofs, each as mean, interval and number of theorems.

    Args:
      evaluation: content of eval.json.
    """
    arms = evaluation["arms"]
    ks = headline_ks(evaluation["k"])
    columns: list[dict[str, Any]] = [
        {"title": f"pass@{k}", "kind": "share", "path": ("pass_at_k", str(k))}
        for k in ks
    ]
    columns += [
        {"title": "entropy", "kind": "nats", "path": ("entropy",)},
        {"title": "distinct proofs", "kind": "count", "path": ("distinct_proofs",)},
    ]
    rows = []
    for arm in arms:
        cells = []
        for column in columns:
            cell = arm["summary"]
            for name in column["path"]:
                cell = cell[name]
            cells.append({**cell, "kind": column["kind"], "best": False})
        rows.append(
            {
                "arm": arm["arm"],
                "cells": cells,
                "theorems": len(arm["theorems"]),
                "missing": arm["summary"]["missing"],
            }
        )
    for place, column in enumerate(columns):
        values = [row["cells"][place]["value"] for row in rows]
        best = max((value for value in values if value is not None), default=None)
        for row in rows:
            cell = row["cells"][place]
            cell["best"] = (
                column["kind"] == "share" and len(rows) > 1 and cell["value"] == best
            )
    return {
        "titles": [column["title"] for column in columns],
        "rows": rows,
        "theorems": max((row["theorems"] for row in rows), default=0),
        "samples": max((arm["samples"] for arm in arms), default=0),
        "missing": sum(row["missing"] for row in rows),
        "partial": any(
            cell["theorems"] < row["theorems"] for row in rows for cell in row["cells"]
        ),
    }


def claim_rows(claims: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each claim with the place of its interval on an axis around zero, in percent."""
    rows = []
    for claim in claims:
        numbers = [claim["low"], claim["difference"], claim["high"]]
        bar = None
        if all(number is not None for number in numbers):
            reach = 1.15 * max(abs(number) for number in numbers) or 1.0
            low, middle, high = (50.0 + 50.0 * number / reach for number in numbers)
            bar = {"low": low, "middle": middle, "high": high}
        comparisons = claim["detail"].split("; ")
        rows.append({**claim, "bar": bar, "comparisons": comparisons})
    return rows


def status_counts(files: RunFiles) -> list[dict[str, Any]]:
    """Attempts by verdict: of each arm's evaluation, and of the samples kept."""
    rows = [
        {"arm": arm["arm"], "part": "evaluation", "counts": dict(arm["statuses"])}
        for arm in files.evaluation.get("arms", [])
        if arm.get("statuses")
    ]
    training: dict[str, Counter[str]] = {}
    for sample in files.samples:
        # Another judge than Lean gives none.
        if sample["status"] is not None:
            training.setdefault(sample["arm"], Counter())[sample["status"]] += 1
    rows += [
        {"arm": arm, "part": "training", "counts": dict(training[arm])}
        for arm in files.arms
        if arm in training
    ]
    for row in rows:
        row["total"] = sum(row["counts"].values())
    return rows


def stage_times(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Wall time of each stage and arm, summed over the rows, in seconds."""
    stages: list[str] = []
    seconds: dict[str, dict[str, float]] = {}
    for row in metrics:
        for key, value in row.items():
            if key.startswith("time/") and key.endswith("_s") and value is not None:
                stage = key.removeprefix("time/").removesuffix("_s")
                if stage not in stages:
                    stages.append(stage)
                arm = seconds.setdefault(row["arm"], {})
                arm[stage] = arm.get(stage, 0.0) + value
    totals = {arm: math.fsum(spent.values()) for arm, spent in seconds.items()}
    return {
        "stages": stages,
        "rows": [
            {"arm": arm, "seconds": spent, "total": totals[arm]}
            for arm, spent in seconds.items()
        ],
        "longest": max(totals.values(), default=0.0),
    }


def last_metrics(files: RunFiles) -> dict[str, Any]:
    """The last value and the course of every metric that is not a time."""
    keys = {
        key: None
        for row in files.metrics
        for key, value in row.items()
        if key not in {"arm", "step", "time"}
        and not key.startswith("time/")
        and isinstance(value, int | float)
    }
    arms = [
        arm for arm in files.arms if any(row["arm"] == arm for row in files.metrics)
    ]
    rows = []
    for key in sorted(keys):
        cells = []
        for arm in arms:
            points = [
                (row["step"], row[key])
                for row in files.metrics
                if row["arm"] == arm and isinstance(row.get(key), int | float)
            ]
            cells.append(
                {"arm": arm, "value": points[-1][1], "line": _sparkline(points)}
                if points
                else None
            )
        rows.append({"key": key, "cells": cells})
    return {"arms": arms, "rows": rows, "size": _SPARKLINE}


def _sparkline(points: Sequence[tuple[float, float]]) -> str:
    """Points of an SVG polyline, at most about 120 of them."""
    points = [*points[: -1 : max(1, len(points) // 120)], points[-1]]
    steps, values = zip(*points, strict=True)
    width, height = _SPARKLINE
    span = (max(steps) - min(steps)) or 1
    low, reach = min(values), (max(values) - min(values)) or 1.0
    return " ".join(
        f"{2 + (width - 4) * (step - min(steps)) / span:.1f},"
        f"{height - 3 - (height - 6) * (value - low) / reach:.1f}"
        for step, value in points
    )


def provenance(config: Mapping[str, Any]) -> dict[str, str]:
    """Versions and revision that the run recorded, by name."""
    recorded = settings(config.get("provenance") or {})
    return {
        name.removeprefix("packages."): value
        for name, value in recorded
        if value != "None"
    }


def settings(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested configuration as (dotted name, value) pairs."""
    if isinstance(value, Mapping):
        return [
            pair
            for key, item in value.items()
            for pair in settings(item, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(value, list) and not any(
        isinstance(item, dict | list) for item in value
    ):
        return [(prefix, ", ".join(map(str, value)))]
    if isinstance(value, list):
        return [
            pair
            for place, item in enumerate(value)
            for pair in settings(item, f"{prefix}.{place}")
        ]
    return [(prefix, str(value))]
