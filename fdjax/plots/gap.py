"""How far the teacher is from the student, token by token, as training goes on.

The rows of samples.jsonl that hold `tokens` and `kl` say it, of some attempts in some
iterations: KL(teacher‖student) in nats at each scored token.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fdjax.plots.lines import Line
from fdjax.plots.trend import Trend

__all__ = ["TokenGaps", "gap_trend", "token_gaps"]

_TOKENS = 24
_COLUMNS = 24
_RESAMPLES = 1000

Scored = list[tuple[str, float]]
"""The scored tokens of an attempt, each with its KL in nats."""


class Cell(NamedTuple):
    """A token in the steps of a column."""

    mean: float
    """KL of an occurrence, nats."""
    occurrences: int


class TokenGaps(NamedTuple):
    """The same tokens of each line, over its steps."""

    tokens: list[str]
    """Those with the largest part in the summed KL of a line, on average over lines,
    largest first."""
    lines: list[tuple[Line, list[str], list[list[Cell | None]]]]
    """Names of the columns, and for each token a cell in each; None where the token did
    not occur."""
    scale: float
    """KL in nats that gets the full colour: the 98th percentile of the cells."""


def gap_trend(line: Line) -> Trend | None:
    """Mean KL over all scored tokens at each step that was logged.

    The interval of one run is a bootstrap over its attempts, whose tokens stay
    together. That of several seeds reaches from the lowest to the highest.
    """
    runs = [_by_step(part.samples, line.arm) for part in line.run.parts]
    runs = [run for run in runs if run]
    if not runs:
        return None
    shared = [step for step in runs[0] if all(step in run for run in runs)]
    if not shared:
        runs, shared = runs[:1], list(runs[0])
    if len(runs) > 1:
        means = np.array([[_mean(run[step]) for step in shared] for run in runs])
        values, low, high = means.mean(0), means.min(0), means.max(0)
    else:
        values = np.array([_mean(runs[0][step]) for step in shared])
        low, high = np.array([_interval(runs[0][step]) for step in shared]).T
    return Trend(np.array(shared, np.float64), values, low, high)


def token_gaps(lines: Sequence[Line]) -> TokenGaps | None:
    """The tokens at which teacher and student differ most, over the steps.

    Args:
      lines: those without scored tokens are left out.

    Returns:
      At most 24 tokens and 24 columns, each of one or more logged steps; None where
      no token was scored.
    """
    scored = [
        (line, steps) for line in lines if (steps := _by_step(_samples(line), line.arm))
    ]
    shares: Counter[str] = Counter()
    for _, steps in scored:
        sums = _sums(steps)
        whole = sum(sums.values()) or 1.0
        shares.update({token: nats / whole for token, nats in sums.items()})
    if not shares:
        return None
    tokens = [token for token, _ in shares.most_common(_TOKENS)]
    tables = []
    for line, steps in scored:
        columns = np.array_split(list(steps), min(_COLUMNS, len(steps)))
        cells = [_column(steps, column.tolist(), tokens) for column in columns]
        names = [_span(column.tolist()) for column in columns]
        tables.append((line, names, [list(row) for row in zip(*cells, strict=True)]))
    means = [cell.mean for *_, rows in tables for row in rows for cell in row if cell]
    return TokenGaps(tokens, tables, float(np.quantile(means, 0.98)) or 1.0)


def _samples(line: Line) -> Iterable[Mapping[str, Any]]:
    return (row for part in line.run.parts for row in part.samples)


def _by_step(samples: Iterable[Mapping[str, Any]], arm: str) -> dict[int, list[Scored]]:
    """Attempts with scored tokens, by step in increasing order."""
    found: dict[int, list[Scored]] = {}
    for row in samples:
        if row["arm"] != arm or not row.get("tokens") or not row.get("kl"):
            continue
        pairs = zip(row["tokens"], row["kl"], strict=False)
        scored = [(token, nats) for token, nats in pairs if nats is not None]
        if scored:
            found.setdefault(row["step"], []).append(scored)
    return dict(sorted(found.items()))


def _sums(steps: Mapping[int, list[Scored]]) -> dict[str, float]:
    """KL of each token, summed over its occurrences."""
    sums: dict[str, float] = {}
    for attempts in steps.values():
        for token, nats in _flat(attempts):
            sums[token] = sums.get(token, 0.0) + nats
    return sums


def _flat(attempts: Iterable[Scored]) -> Iterable[tuple[str, float]]:
    return (pair for attempt in attempts for pair in attempt)


def _column(
    steps: Mapping[int, list[Scored]], column: Sequence[int], tokens: Sequence[str]
) -> list[Cell | None]:
    found: dict[str, list[float]] = {token: [] for token in tokens}
    for step in column:
        for token, nats in _flat(steps[step]):
            if token in found:
                found[token].append(nats)
    return [
        Cell(float(np.mean(nats)), len(nats)) if nats else None
        for nats in found.values()
    ]


def _span(column: Sequence[int]) -> str:
    first, last = column[0], column[-1]
    return str(first) if first == last else f"{first}–{last}"


def _mean(attempts: list[Scored]) -> float:
    return float(np.mean([nats for _, nats in _flat(attempts)]))


def _interval(attempts: list[Scored]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over tokens, attempts drawn with return."""
    sums = np.array([sum(nats for _, nats in attempt) for attempt in attempts])
    counts = np.array([len(attempt) for attempt in attempts])
    drawn = np.random.default_rng(0).integers(len(sums), size=(_RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
