"""Figures of a run, from its files alone: pass@k, policy entropy and reward."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fdjax.files import replacing, write_whole
from fdjax.plots.run_files import RunFiles, read_run
from fdjax.plots.style import ArmStyle, arm_styles

__all__ = [
    "INK",
    "figure_svg",
    "pass_at_k_figure",
    "probe_figure",
    "run_figures",
    "training_figure",
    "write_figures",
]

INK = "#1f2328"
"""Colour of text and axes; nothing else has it, so that a page can replace it."""

# Height of a line's name, in hundredths of an inch, that keeps names apart.
_LABEL_HEIGHT = 15.0
_SMOOTH_FROM = 80
_ESTIMATE = ("value", "low", "high")
# Measured by the sampler alike for every arm that samples, and by no other: what a loss
# measures is over its own scored tokens, of references in SFT.
_TRAINING = (
    ("entropy", "rollout/entropy", "policy entropy (nats per sampled token)"),
    ("reward", "reward/mean", "mean reward"),
)
_PROBES = (
    ("probe_reward", "reward", "mean reward, held out"),
    ("probe_entropy", "entropy", "policy entropy (nats), held out"),
    ("probe_marginal", "marginal_entropy", "marginal entropy (nats), held out"),
)
_RC: dict[Any, Any] = {
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "fdjax",
    "path.simplify": True,
}


def pass_at_k_figure(
    evaluation: Mapping[str, Any], styles: Mapping[str, ArmStyle]
) -> Figure:
    """pass@k against k (logarithmic) for each arm, with its interval as a band.

    Args:
      evaluation: content of eval.json, with the arms' summaries.
      styles: style of each arm.
    """
    figure, axes = _canvas((7.2, 4.5), "attempts k", "pass@k")
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
        _line(axes, ks, values, style, markers=True)
        ends.append((ks[-1], values[-1], style))
    axes.set_xscale("log", base=2)
    ks = evaluation["k"]
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.set_ylim(0.0, min(axes.get_ylim()[1], 1.02))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    _label_ends(figure, axes, ends)
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
    figure, axes = _canvas((5.6, 3.5), "iteration", label)
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
        _line(axes, steps, values, style, markers=len(steps) <= 40)
        ends.append((steps[-1], values[-1], style))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    low, high = axes.get_ylim()
    # Rates and entropies are read against zero, unless that would hide the change.
    if low > 0.0 and high > 1.4 * low:
        axes.set_ylim(bottom=0.0)
    _label_ends(figure, axes, ends)
    return figure


def probe_figure(probes: Sequence[Mapping[str, Any]], key: str, label: str) -> Figure:
    """A measurement on problems held out, over the iterations of each arm.

    All arms begin at the pretrained policy. Dashed lines are of teachers, which read
    feedback.

    Args:
      probes: rows of probes.jsonl.
      key: the measurement.
      label: name and unit of it, for the axis.
    """
    policies = list(dict.fromkeys(row["policy"] for row in probes))
    styles = arm_styles([one for one in policies if one != "base"])
    figure, axes = _canvas((5.6, 3.5), "iteration", label)
    ends = []
    for policy, style in styles.items():
        for reader, dashes in (("student", "-"), ("teacher", "--")):
            points = sorted(
                (row["iterations"], row[key])
                for row in probes
                if row["reader"] == reader
                and row[key] is not None
                and row["policy"] in (policy, "base")
            )
            if len(points) < 2 or points[-1][0] == 0:
                continue
            steps, values = np.array(points, np.float64).T
            markers = reader == "student"
            _line(axes, steps, values, style, markers=markers, dashes=dashes)
            if reader == "student":
                ends.append((steps[-1], values[-1], style))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    _label_ends(figure, axes, ends)
    return figure


def run_figures(files: RunFiles) -> dict[str, Figure]:
    """The figures that the files allow, by name.

    Args:
      files: a run as `read_run` gives it.
    """
    styles = arm_styles(files.arms)
    figures: dict[str, Figure] = {}
    with matplotlib.rc_context(_RC):
        if files.evaluation.get("arms"):
            figures["pass_at_k"] = pass_at_k_figure(files.evaluation, styles)
        for name, key, label in _TRAINING:
            if any(row.get(key) is not None for row in files.metrics):
                figures[name] = training_figure(files.metrics, key, styles, label)
        if any(row["step"] for row in files.probes):
            for name, key, label in _PROBES:
                figures[name] = probe_figure(files.probes, key, label)
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
        with matplotlib.rc_context(_RC), replacing(image) as file:
            FigureCanvasAgg(figure).print_png(file)
        write_whole(drawing, figure_svg(figure).encode())
        written += [image, drawing]
    return written


def figure_svg(figure: Figure) -> str:
    """The figure as SVG text, the same for the same figure."""
    with matplotlib.rc_context(_RC):
        buffer = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return buffer.getvalue().decode()


def _canvas(
    size: tuple[float, float], x_label: str, y_label: str
) -> tuple[Figure, Axes]:
    """An empty figure in the style of the report; size in inches."""
    figure = Figure(figsize=size, dpi=160, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
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
    return figure, axes


def _line(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    style: ArmStyle,
    *,
    markers: bool,
    dashes: str = "-",
) -> None:
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


def _label_ends(
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


def _moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over a centred window that shrinks at both ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    half = window // 2
    places = np.arange(len(values))
    start = np.maximum(places - half, 0)
    stop = np.minimum(places + half + 1, len(values))
    return (sums[stop] - sums[start]) / (stop - start)
