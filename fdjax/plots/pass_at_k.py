"""pass@k of a line, from its evaluation or its last probe."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fdjax.plots.held_out import last_probes
from fdjax.plots.lines import Line
from fdjax.plots.trend import Trend

__all__ = ["pass_at_k_trend"]

_ESTIMATE = ("value", "low", "high")

Points = dict[int, tuple[float, float, float]]
"""k to pass@k and the ends of its interval."""


def pass_at_k_trend(line: Line) -> Trend | None:
    """pass@k over k; None where it was not measured at two k or more.

    The interval of one run is over theorems. That of several seeds reaches from the
    lowest to the highest.
    """
    runs = list(_evaluated(line)) or list(_probed(line))
    if not runs:
        return None
    shared = sorted(set(runs[0]).intersection(*runs[1:]))
    if len(shared) < 2:
        return None
    points = np.array([[run[k] for k in shared] for run in runs], np.float64)
    if len(runs) > 1:
        seeds = points[:, :, 0]
        low, values, high = seeds.min(axis=0), seeds.mean(axis=0), seeds.max(axis=0)
    else:
        values, low, high = points[0].T
    return Trend(np.array(shared, np.float64), values, low, high)


def _evaluated(line: Line) -> Iterator[Points]:
    for part in line.run.parts:
        for arm in part.evaluation.get("arms", []):
            if arm["arm"] == line.arm:
                yield _points(arm["summary"]["pass_at_k"])


def _probed(line: Line) -> Iterator[Points]:
    for row in last_probes(line.run.probed, line.arm, "student"):
        yield _points(row.get("pass_at_k", {}))


def _points(measured: Mapping[str, Any]) -> Points:
    """Those of a file's estimates that were measured."""
    return {
        int(k): tuple(estimate[name] for name in _ESTIMATE)
        for k, estimate in measured.items()
        if estimate and estimate["value"] is not None
    }
