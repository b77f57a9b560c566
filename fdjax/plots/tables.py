"""Tables of a run's evaluation, claims, settings and versions."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "claim_rows",
    "headline",
    "headline_ks",
    "provenance",
    "settings",
]

_HEADLINE_KS = frozenset({1, 4, 16, 64})


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
