"""Axes, lines and their names in the style of the report; drawings as files."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from fdjax.plots.style import ArmStyle

__all__ = [
    "INK",
    "SETTINGS",
    "blank",
    "draw_band",
    "draw_line",
    "dress",
    "figure_svg",
    "label_ends",
    "small_multiples",
]

INK = "#1f2328"
"""Colour of text and axes; nothing else has it, so that a page can replace it."""

SETTINGS: dict[Any, Any] = {
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "fdjax",
    "path.simplify": True,
}
"""Of matplotlib, under which figures are made and written."""

# Height of a line's name, in hundredths of an inch, that keeps names apart.
_LABEL_HEIGHT = 15.0
_ACROSS = 4


def figure_svg(figure: Figure) -> str:
    """The figure as SVG text, the same for the same figure."""
    with matplotlib.rc_context(SETTINGS):
        buffer = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return buffer.getvalue().decode()


def blank(size: tuple[float, float]) -> Figure:
    """A figure without axes; size in inches."""
    return Figure(figsize=size, dpi=160, layout="constrained", facecolor="white")


def small_multiples(count: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure of axes on one scale, four in a row; size of each in inches."""
    across = min(_ACROSS, count)
    down = -(-count // across)
    figure = blank((size[0] * across, size[1] * down))
    if count > 1:
        figure.set_layout_engine("constrained", wspace=0.05, hspace=0.05)
    grid = list(figure.subplots(down, across, sharey=True, squeeze=False).flat)
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, grid[:count]


def dress(axes: Axes, x_label: str, y_label: str) -> None:
    """Gives axes the style of the report."""
    axes.set_facecolor("none")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(INK)
    axes.spines["bottom"].set_alpha(0.5)
    axes.grid(axis="y", color=INK, alpha=0.13, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0, pad=5)
    axes.tick_params(axis="x", length=3)
    axes.set_xlabel(x_label, color=INK, labelpad=6)
    axes.set_title(y_label, color=INK, loc="left", fontsize=10.5, pad=10)


def draw_line(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    style: ArmStyle,
    *,
    markers: bool,
    dashes: str = "-",
) -> None:
    """Draws an arm's course; dashed lines are thinner."""
    axes.plot(
        x,
        y,
        color=style.colour,
        linewidth=2.0 if dashes == "-" else 1.2,
        linestyle=dashes,
        solid_capstyle="round",
        marker=style.marker if markers else "",
        markersize=5.0,
        markeredgecolor="white",
        markeredgewidth=0.7,
    )


def draw_band(
    axes: Axes,
    x: np.ndarray,
    low: np.ndarray | None,
    high: np.ndarray | None,
    style: ArmStyle,
) -> None:
    """Draws an interval around an arm's course, where there is one."""
    if low is not None and high is not None:
        axes.fill_between(x, low, high, color=style.colour, alpha=0.14, linewidth=0)


def label_ends(
    figure: Figure, axes: Axes, ends: Sequence[tuple[float, float, ArmStyle]]
) -> None:
    """Name each line at the right margin; names that would overlap move apart."""
    if not ends:
        return
    ordered = sorted(ends, key=lambda end: end[1])
    low, high = axes.get_ylim()
    height = axes.get_position().height * figure.get_figheight() * 100.0
    gap = _LABEL_HEIGHT / height * (high - low)
    places = [value for _, value, _ in ordered]
    for _ in range(50):
        for index in range(1, len(places)):
            overlap = places[index - 1] + gap - places[index]
            if overlap > 0.0:
                places[index - 1] -= overlap / 2
                places[index] += overlap / 2
    lift = max(0.0, low + gap / 2 - places[0])
    right = axes.get_xlim()[1]
    longest = max(x for x, _, _ in ends)
    for (x, y, style), place in zip(ordered, places, strict=True):
        if x < longest:
            axes.plot([x, right], [y, y], color=style.colour, alpha=0.5, ls=(0, (1, 3)))
        axes.annotate(
            style.label,
            (1.0, place + lift),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            color=style.colour,
            va="center",
            fontweight="bold",
            annotation_clip=False,
            parse_math=False,
        )
    axes.set_xlim(right=right)
