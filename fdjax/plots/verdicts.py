"""What became of the attempts, as training goes on."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fdjax.plots.drawing import dress, small_multiples
from fdjax.plots.lines import Line
from fdjax.plots.style import STATUS_COLOURS

__all__ = ["verdict_shares", "verdicts_figure"]

_PLACES = 80


def verdict_shares(
    line: Line,
) -> tuple[Float64[np.ndarray, " I"], Float64[np.ndarray, "I C"]] | None:
    """Steps, and the share of each verdict in the order of `STATUS_COLOURS`.

    Several seeds are pooled; from 80 steps on, neighbours are.

    Returns:
      None where no row has verdicts, as under another judge than Lean.
    """
    shares: dict[int, list[list[float]]] = {}
    for row in (row for rows in line.metrics for row in rows):
        of_row = [row.get(f"verdict/{status}") or 0.0 for status in STATUS_COLOURS]
        if any(of_row):
            shares.setdefault(row["step"], []).append(of_row)
    if not shares:
        return None
    bins = np.array_split(sorted(shares), min(_PLACES, len(shares)))
    steps = np.array([np.mean(one) for one in bins])
    means = [
        np.mean([each for step in one.tolist() for each in shares[step]], axis=0)
        for one in bins
    ]
    return steps, np.array(means)


def verdicts_figure(lines: Sequence[Line]) -> Figure | None:
    """Shares of the verdicts over the iterations, stacked, a panel for each line.

    Returns:
      None where no line has verdicts.
    """
    measured = [(line, found) for line in lines if (found := verdict_shares(line))]
    if not measured:
        return None
    figure, grid = small_multiples(len(measured), (2.9, 2.5))
    for axes, (line, (steps, shares)) in zip(grid, measured, strict=True):
        dress(axes, "iteration", "")
        axes.set_title(
            line.style.label,
            color=line.style.colour,
            loc="left",
            fontsize=10.5,
            fontweight="bold",
            parse_math=False,
        )
        if len(steps) == 1:  # an area needs two ends
            steps = steps[0] + np.array([-0.5, 0.5])
            shares = shares.repeat(2, axis=0)
        axes.stackplot(
            steps, shares.T, colors=list(STATUS_COLOURS.values()), linewidth=0
        )
        axes.set_ylim(0.0, 1.0)
        axes.margins(x=0.0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    return figure
