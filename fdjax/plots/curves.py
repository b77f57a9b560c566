"""Figures of a run, from its files alone: pass@k, policy entropy and reward."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fdjax.files import replacing, write_whole
from fdjax.plots.drawing import SETTINGS, canvas, draw_line, figure_svg, label_ends
from fdjax.plots.held_out import held_out_figure
from fdjax.plots.run_files import RunFiles, read_run
from fdjax.plots.style import ArmStyle, arm_styles

__all__ = [
    "pass_at_k_figure",
    "run_figures",
    "training_figure",
    "write_figures",
]

_SMOOTH_FROM = 80
_ESTIMATE = ("value", "low", "high")
# Measured by the sampler alike for every arm that samples, and by no other: what a loss
# measures is over its own scored tokens, of references in SFT.
_TRAINING = (
    ("entropy", "rollout/entropy", "policy entropy (nats per sampled token)"),
    ("reward", "reward/mean", "mean reward"),
)


def pass_at_k_figure(
    evaluation: Mapping[str, Any], styles: Mapping[str, ArmStyle]
) -> Figure:
    """pass@k against k (logarithmic) for each arm, with its interval as a band.

    Args:
      evaluation: content of eval.json, with the arms' summaries.
      styles: style of each arm.
    """
    figure, axes = canvas((7.2, 4.5), "attempts k", "pass@k")
    ends = []
    for arm in evaluation["arms"]:
        style = styles[arm["arm"]]
        points = [
            (k, *(arm["summary"]["pass_at_k"][str(k)][name] for name in _ESTIMATE))
            for k in evaluation["k"]
            if arm["summary"]["pass_at_k"][str(k)]["value"] is not None
        ]
        if not points:
            continue
        ks, values, low, high = np.array(points, np.float64).T
        axes.fill_between(ks, low, high, color=style.colour, alpha=0.08, linewidth=0)
        draw_line(axes, ks, values, style, markers=True)
        ends.append((ks[-1], values[-1], style))
    axes.set_xscale("log", base=2)
    ks = evaluation["k"]
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.set_ylim(0.0, min(axes.get_ylim()[1], 1.02))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    label_ends(figure, axes, ends)
    return figure


def training_figure(
    metrics: Sequence[Mapping[str, Any]],
    key: str,
    styles: Mapping[str, ArmStyle],
    label: str,
) -> Figure:
    """A metric over the iterations of each arm that has it.

    From 80 rows on, the line is a moving mean over a twentieth of the rows and the
    rows themselves stand faintly behind it.

    Args:
      metrics: rows of metrics.jsonl.
      key: the metric.
      styles: style of each arm.
      label: name and unit of the metric, for the axis.
    """
    figure, axes = canvas((5.6, 3.5), "iteration", label)
    ends = []
    for arm, style in styles.items():
        points = [
            (row["step"], row[key])
            for row in metrics
            if row["arm"] == arm and row.get(key) is not None
        ]
        if not points:
            continue
        steps, values = np.array(points, np.float64).T
        if len(steps) >= _SMOOTH_FROM:
            axes.plot(steps, values, color=style.colour, alpha=0.22, linewidth=0.8)
            values = _moving_mean(values, len(values) // 20)
        draw_line(axes, steps, values, style, markers=len(steps) <= 40)
        ends.append((steps[-1], values[-1], style))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    low, high = axes.get_ylim()
    # Rates and entropies are read against zero, unless that would hide the change.
    if low > 0.0 and high > 1.4 * low:
        axes.set_ylim(bottom=0.0)
    label_ends(figure, axes, ends)
    return figure


def run_figures(files: RunFiles) -> dict[str, Figure]:
    """The figures that the files allow, by name.

    Args:
      files: a run as `read_run` gives it.
    """
    styles = arm_styles(files.arms)
    figures: dict[str, Figure] = {}
    with matplotlib.rc_context(SETTINGS):
        if files.evaluation.get("arms"):
            figures["pass_at_k"] = pass_at_k_figure(files.evaluation, styles)
        for name, key, label in _TRAINING:
            if any(row.get(key) is not None for row in files.metrics):
                figures[name] = training_figure(files.metrics, key, styles, label)
        if files.probed:
            figures["held_out"] = held_out_figure(files.probed, styles)
    return figures


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
    for name, figure in run_figures(read_run(run_dir)).items():
        image, drawing = folder / f"{name}.png", folder / f"{name}.svg"
        with matplotlib.rc_context(SETTINGS), replacing(image) as file:
            FigureCanvasAgg(figure).print_png(file)
        write_whole(drawing, figure_svg(figure).encode())
        written += [image, drawing]
    return written


def _moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over a centred window that shrinks at both ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    half = window // 2
    places = np.arange(len(values))
    start = np.maximum(places - half, 0)
    stop = np.minimum(places + half + 1, len(values))
    return (sums[stop] - sums[start]) / (stop - start)
