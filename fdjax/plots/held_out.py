"""Measurements on problems held out, of one run or of several seeds together."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fdjax.plots.drawing import INK, blank, draw_band, draw_line, dress
from fdjax.plots.lines import Line
from fdjax.plots.style import ArmStyle, arm_label

__all__ = ["Course", "courses", "held_out_figure", "held_out_tables", "last_probes"]

Probes = Sequence[Mapping[str, Any]]
"""Rows of a probes.jsonl."""

_PANELS = (
    ("reward", "mean reward, held out"),
    ("entropy", "policy entropy, nats a token"),
    ("marginal_entropy", "marginal entropy, nats"),
)
_ENDS = {
    "reward": ("reward", 3),
    "entropy": ("entropy, nats", 2),
    "marginal_entropy": ("marginal entropy, nats", 2),
    "length": ("tokens", 1),
    "finished": ("ended by itself", 2),
}


class Course(NamedTuple):
    """A measurement of one policy over its iterations."""

    policy: str
    """The arm."""
    reader: str
    """student, or teacher: the one who has read feedback."""
    iterations: list[int]
    """I of them, those that every run has measured, from 0, the pretrained policy."""
    values: Float64[np.ndarray, "S I"]
    """Of each of S runs."""


def courses(runs: Sequence[Probes], key: str) -> list[Course]:
    """The courses of a measurement, of each policy and of each teacher measured.

    Args:
      runs: probes of runs that differ in their seed only; at least one.
      key: the measurement.
    """
    found = []
    for policy in _policies(runs):
        for reader in ("student", "teacher"):
            points = [
                {
                    row["iterations"]: row[key]
                    for row in rows
                    if row["reader"] == reader
                    and row["policy"] in (policy, "base")
                    and row[key] is not None
                }
                for rows in runs
            ]
            shared = sorted(set(points[0]).intersection(*points[1:]))
            if len(shared) > 1:
                values = [[of_run[place] for place in shared] for of_run in points]
                found.append(Course(policy, reader, shared, np.array(values)))
    return found


def last_probes(
    runs: Sequence[Probes], policy: str, reader: str
) -> list[Mapping[str, Any]]:
    """The last probe of a policy in each run that has one; "base" is a policy, too."""
    found = []
    for rows in runs:
        of_policy = [
            row for row in rows if (row["policy"], row["reader"]) == (policy, reader)
        ]
        found += of_policy[-1:]
    return found


def held_out_figure(lines: Sequence[Line]) -> Figure | None:
    """Reward, entropy and marginal entropy over the iterations, side by side.

    Values are means over seeds, bands reach from the lowest to the highest; dashed are
    teachers, which have read feedback.

    Returns:
      None where no line was probed since it began to train.
    """
    probed = [line for line in lines if line.run.probed]
    if not probed:
        return None
    figure = blank((11.6, 4.0))
    shown: dict[tuple[ArmStyle, str], None] = {}
    for axes, (key, label) in zip(figure.subplots(1, 3), _PANELS, strict=True):
        dress(axes, "iteration", label)
        for line in probed:
            for course in courses(line.run.probed, key):
                if course.policy == line.arm:
                    shown[line.style, course.reader] = None
                    _draw(axes, course, line.style)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        low, high = axes.get_ylim()
        # Against zero, unless that would hide the change.
        if high > 1.6 * low:
            axes.set_ylim(bottom=min(0.0, low))
    figure.set_layout_engine("constrained", wspace=0.06)
    handles = [_handle(style) for style, reader in shown if reader == "student"]
    if any(reader == "teacher" for _, reader in shown):
        handles.append(_TEACHER)
    # Several runs have the page's legend.
    if len({line.run.name for line in probed}) == 1:
        figure.legend(
            handles=handles,
            loc="outside upper left",
            ncols=len(handles),
            frameon=False,
            labelcolor="linecolor",
            prop={"weight": "bold"},
        )
    return figure


def held_out_tables(runs: Sequence[Probes]) -> list[list[list[str]]]:
    """Two tables, each with a row of titles: reward by iteration, and all at the end.

    Cells are the mean over runs, with the lowest and the highest where there are some.

    Args:
      runs: probes of runs that differ in their seed only; at least one.
    """
    return [list(_by_iteration(runs)), list(_at_the_end(runs))]


def _by_iteration(runs: Sequence[Probes]) -> Iterator[list[str]]:
    found = courses(runs, "reward")
    yield ["iteration", *(_name(course.policy, course.reader) for course in found)]
    for place in sorted({one for course in found for one in course.iterations}):
        yield [
            str(place),
            *(
                _cell(course.values[:, course.iterations.index(place)], 3)
                if place in course.iterations
                else "–"
                for course in found
            ),
        ]


def _at_the_end(runs: Sequence[Probes]) -> Iterator[list[str]]:
    yield ["policy", *(title for title, _ in _ENDS.values())]
    # A teacher that moves has a column of its own in the other table.
    readers = [("base", "teacher"), *((one, "student") for one in _policies(runs))]
    for policy, reader in [("base", "student"), *readers]:
        rows = last_probes(runs, policy, reader)
        if rows:
            yield [
                _name(policy, reader),
                *(
                    _cell(np.array([row[key] for row in rows], np.float64), digits)
                    for key, (_, digits) in _ENDS.items()
                ),
            ]


def _cell(values: Float64[np.ndarray, " S"], digits: int) -> str:
    def shown(value: float) -> str:
        return f"{value:.{digits}f}"

    known = values[~np.isnan(values)]
    if not known.size:
        return "–"
    mean = shown(float(known.mean()))
    low, high = shown(float(known.min())), shown(float(known.max()))
    return mean if low == high else f"{mean} ({low}–{high})"


def _name(policy: str, reader: str) -> str:
    label = arm_label(policy)
    if reader == "student":
        return label
    return "base with feedback" if policy == "base" else f"{label}'s teacher"


def _policies(runs: Sequence[Probes]) -> list[str]:
    found = dict.fromkeys(row["policy"] for rows in runs for row in rows)
    return [policy for policy in found if policy != "base"]


def _draw(axes: Axes, course: Course, style: ArmStyle) -> None:
    steps, student = np.array(course.iterations), course.reader == "student"
    if len(course.values) > 1:
        low, high = course.values.min(axis=0), course.values.max(axis=0)
        draw_band(axes, steps, low, high, style)
    draw_line(
        axes,
        steps,
        course.values.mean(axis=0),
        style,
        markers=student,
        dashes="-" if student else "--",
    )


_TEACHER = Line2D([], [], color=INK, linestyle="--", label="teacher, with feedback")


def _handle(style: ArmStyle) -> Line2D:
    return Line2D(
        [],
        [],
        color=style.colour,
        marker=style.marker,
        markeredgecolor="white",
        markeredgewidth=0.7,
        linewidth=2.0,
        label=style.label,
    )
