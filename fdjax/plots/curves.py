"""Figures of runs, from their files alone: pass@k and what is measured in training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fdjax.files import replacing, write_whole
from fdjax.plots.drawing import (
    INK,
    SETTINGS,
    draw_band,
    draw_line,
    dress,
    figure_svg,
    label_ends,
    small_multiples,
)
from fdjax.plots.gap import gap_trend
from fdjax.plots.held_out import held_out_figure
from fdjax.plots.lines import Line, lines_of, panels
from fdjax.plots.pass_at_k import pass_at_k_trend
from fdjax.plots.run_files import read_run
from fdjax.plots.style import ArmStyle
from fdjax.plots.trend import Trend, metric_trend
from fdjax.plots.verdicts import verdicts_figure

__all__ = [
    "CAPTIONS",
    "gap_figure",
    "pass_at_k_figure",
    "run_figures",
    "training_figure",
    "write_figures",
]

_ROWS_SHOWN = 2000
"""Rows behind a moving mean that are drawn; more are a smear, and megabytes."""
_TICKS_SHOWN = 200


class Metric(NamedTuple):
    """A metric with a figure."""

    name: str
    key: str
    label: str
    caption: str


# Measured by the sampler alike for every arm that samples, and by no other: what a loss
# measures is over its own scored tokens, of references in SFT.
_ALWAYS = (
    Metric(
        "entropy",
        "rollout/entropy",
        "policy entropy (nats per sampled token)",
        "Entropy of the policy at the temperature of sampling, mean over all tokens "
        "that it sampled in the iteration (rollout/entropy). Arms that sample nothing, "
        "such as SFT, have no line.",
    ),
    Metric(
        "reward",
        "reward/mean",
        "mean reward",
        "Mean reward of the attempts sampled in an iteration (reward/mean).",
    ),
)
_COMPARED = (
    Metric(
        "verified",
        "verdict/verified",
        "share verified",
        "Attempts that Lean verified (verdict/verified).",
    ),
    Metric(
        "length",
        "rollout/length",
        "tokens of an attempt",
        "Tokens that the policy wrote (rollout/length).",
    ),
    Metric(
        "finished",
        "rollout/finished",
        "share ended by a stop token",
        "Attempts that the policy ended itself (rollout/finished).",
    ),
    Metric(
        "live_groups",
        "rollout/live_groups",
        "share of groups with unequal rewards",
        "Groups that a group-relative advantage learns from (rollout/live_groups).",
    ),
    Metric(
        "loss",
        "train/loss",
        "loss",
        "train/loss: compare it between runs of one objective only.",
    ),
    Metric(
        "gradient_norm",
        "train/gradient_norm",
        "gradient norm",
        "Norm of the gradient before it is clipped (train/gradient_norm).",
    ),
)
CAPTIONS = {
    "pass_at_k": "Chance that k attempts hold a verified proof, mean over theorems.",
    "held_out": "On problems held out, from the pretrained policy on: reward; entropy "
    "of the policy over the tokens that it sampled; and marginal entropy, that of the "
    "next-token distribution averaged over all sampled positions, which falls first "
    "where a policy collapses onto few phrases. Bands: lowest to highest seed.",
    "verdicts": "What became of the attempts of an iteration, as shares.",
    "gap": "KL(teacher‖student) in nats, mean over the scored tokens of the attempts "
    "that were logged. Bands: 95 % bootstrap intervals, attempts drawn with return; of "
    "several seeds the lowest to the highest.",
} | {metric.name: metric.caption for metric in (*_ALWAYS, *_COMPARED)}
"""Figure to its caption."""


def pass_at_k_figure(lines: Sequence[Line]) -> Figure | None:
    """pass@k against k (logarithmic) for each line, with its interval as a band.

    Returns:
      None where no line has pass@k.
    """
    measured = _measured(lines, pass_at_k_trend)
    ks = sorted({int(k) for _, course in measured for k in course.steps})

    def adjust(axes: Axes) -> None:
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.minorticks_off()
        axes.set_ylim(0.0, min(axes.get_ylim()[1], 1.02))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")

    return _figure(measured, "attempts k", "pass@k", adjust, (7.2, 4.5))


def training_figure(lines: Sequence[Line], key: str, label: str) -> Figure | None:
    """A metric over the iterations of each line that has it, as `trend` gives it.

    The rows themselves stand faintly behind a moving mean. Ticks at the bottom are
    what guards saw.

    Args:
      lines: what is compared.
      key: the metric.
      label: name and unit of the metric, for the axis.

    Returns:
      None where no line has the metric.
    """
    measured = _measured(lines, lambda line: metric_trend(line, key))
    return _figure(measured, "iteration", label, _adjust_steps, (5.6, 3.5), ticks=True)


def gap_figure(lines: Sequence[Line]) -> Figure | None:
    """The mean KL between teacher and student over the iterations.

    Returns:
      None where no line has scored tokens.
    """
    label = "teacher–student KL (nats per scored token)"
    measured = _measured(lines, gap_trend)
    return _figure(measured, "iteration", label, _adjust_steps, (7.2, 3.5))


def run_figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """The figures that the files allow, by name; some metrics only to compare runs.

    Args:
      lines: of one run or several, as `lines_of` gives them.
    """
    runs = {line.run.name: line.run for line in lines}
    metrics = _ALWAYS if len(runs) == 1 else (*_ALWAYS, *_COMPARED)
    with matplotlib.rc_context(SETTINGS):
        figures = {
            "pass_at_k": pass_at_k_figure(lines),
            **{
                metric.name: training_figure(lines, metric.key, metric.label)
                for metric in metrics
            },
            "held_out": held_out_figure(lines),
            "verdicts": verdicts_figure(lines),
            "gap": gap_figure(lines),
        }
    return {name: figure for name, figure in figures.items() if figure is not None}


def write_figures(run_dir: Path) -> list[Path]:
    """Write each figure of a run as PNG and SVG into its folder `figures`.

    Args:
      run_dir: folder of the run.

    Returns:
      The files written.

    Raises:
      DataError: the folder holds no run.
    """
    folder = run_dir / "figures"
    folder.mkdir(exist_ok=True)
    written = []
    for name, figure in run_figures(lines_of([read_run(run_dir)])).items():
        image, drawing = folder / f"{name}.png", folder / f"{name}.svg"
        with matplotlib.rc_context(SETTINGS), replacing(image) as file:
            FigureCanvasAgg(figure).print_png(file)
        write_whole(drawing, figure_svg(figure).encode())
        written += [image, drawing]
    return written


def _measured(
    lines: Sequence[Line], measure: Callable[[Line], Trend | None]
) -> list[tuple[Line, Trend]]:
    return [(line, course) for line in lines if (course := measure(line))]


def _figure(
    measured: Sequence[tuple[Line, Trend]],
    x_label: str,
    y_label: str,
    adjust: Callable[[Axes], None],
    size: tuple[float, float],
    *,
    ticks: bool = False,
) -> Figure | None:
    """The courses on one pair of axes, or a row of panels with one scale.

    The lines of one run carry their names; several runs have the page's legend.
    """
    if not measured:
        return None
    courses = {(line.run.name, line.arm): course for line, course in measured}
    parts = panels([line for line, _ in measured])
    figure, grid = small_multiples(
        len(parts), size if len(parts) == 1 else (2.9, size[1])
    )
    for axes, part in zip(grid, parts, strict=True):
        dress(axes, x_label, part.title or y_label)
        for line in part.lines:
            _draw(axes, courses[line.run.name, line.arm], line.style)
            if ticks and line.events:
                _draw_ticks(axes, line)
    for axes in grid:
        adjust(axes)
    if len(parts) > 1:
        figure.suptitle(y_label, x=0.01, ha="left", fontsize=10.5, color=INK)
    elif len({line.run.name for line, _ in measured}) == 1:
        ends = [
            (course.steps[-1], course.values[-1], line.style)
            for line, course in measured
        ]
        label_ends(figure, grid[0], ends)
    return figure


def _draw(axes: Axes, course: Trend, style: ArmStyle) -> None:
    if course.rows is not None and len(course.rows[0]) <= _ROWS_SHOWN:
        axes.plot(*course.rows, color=style.colour, alpha=0.22, linewidth=0.8)
    draw_band(axes, course.steps, course.low, course.high, style)
    few = len(course.steps) <= 40 and course.rows is None
    draw_line(axes, course.steps, course.values, style, markers=few)


def _draw_ticks(axes: Axes, line: Line) -> None:
    steps = sorted({row["step"] for row in line.events})[:_TICKS_SHOWN]
    axes.plot(
        steps,
        np.zeros(len(steps)),
        color=line.style.colour,
        linestyle="",
        marker="|",
        markersize=9.0,
        transform=axes.get_xaxis_transform(),
        clip_on=False,
    )


def _adjust_steps(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    low, high = axes.get_ylim()
    # Rates and entropies are read against zero, unless that would hide the change.
    if low > 0.0 and high > 1.4 * low:
        axes.set_ylim(bottom=0.0)
