"""What a report compares: the arms of one run, or those of several."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from fdjax.plots.run_files import RunFiles
from fdjax.plots.style import COLOURS, ArmStyle, arm_label, arm_styles

__all__ = ["Line", "Panel", "legend", "lines_of", "panels"]


class Line(NamedTuple):
    """An arm of a run: a line of each figure and a row of each table."""

    run: RunFiles
    """One run, or several seeds of one experiment."""
    arm: str
    style: ArmStyle

    @property
    def metrics(self) -> list[list[dict[str, Any]]]:
        """Its rows of metrics.jsonl, of each seed that has some."""
        found = [part.by_arm.get(self.arm) for part in self.run.parts]
        return [rows for rows in found if rows]

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its rows of events.jsonl, of all seeds."""
        rows = [row for part in self.run.parts for row in part.events]
        return [row for row in rows if row["arm"] == self.arm]


class Panel(NamedTuple):
    """Lines that share axes."""

    title: str
    """Empty where the panel is the only one."""
    lines: list[Line]


def lines_of(runs: Sequence[RunFiles]) -> list[Line]:
    """The arms of one run, or every arm of every run.

    Each has a colour of its own as far as the colours reach; with more arms of several
    runs than colours, a colour is a run, and figures have a panel for each arm.

    Args:
      runs: at least one; several have different names.
    """
    if len(runs) == 1:
        styles = arm_styles(runs[0].arms)
        return [Line(runs[0], arm, style) for arm, style in styles.items()]
    found = [(run, arm) for run in runs for arm in run.arms]
    keys = [f"{run.name}\n{arm}" for run, arm in found]
    if len(found) <= len(COLOURS):
        styles = list(arm_styles(keys).values())
    else:
        of_runs = arm_styles([run.name for run in runs])
        styles = [of_runs[run.name] for run, _ in found]
    one_each = len({arm for _, arm in found}) == 1
    return [
        Line(
            run,
            arm,
            style._replace(
                arm=arm,
                label=run.name if one_each else f"{run.name} · {arm_label(arm)}",
            ),
        )
        for (run, arm), style in zip(found, styles, strict=True)
    ]


def legend(lines: Sequence[Line]) -> list[ArmStyle]:
    """What each colour stands for: a line, or a run where it has several lines."""
    styles = {line.style.place: line for line in lines}
    if len(styles) == len(lines):
        return [line.style for line in lines]
    runs = {line.run.name: line.style for line in lines}
    return [style._replace(label=name) for name, style in runs.items()]


def panels(lines: Sequence[Line]) -> list[Panel]:
    """One panel for all lines while each has its colour, else one for each arm."""
    colours = {line.style.place for line in lines}
    if len(colours) == len(lines) or len({line.run.name for line in lines}) == 1:
        return [Panel("", list(lines))]
    arms = dict.fromkeys(line.arm for line in lines)
    return [
        Panel(arm_label(arm), [line for line in lines if line.arm == arm])
        for arm in arms
    ]
