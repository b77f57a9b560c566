"""What a person sees of a run: progress while it lasts, a summary at its end."""

import math
import time
from array import array
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from fdjax.lean.engine.verifier import Statistics
from fdjax.lean.facts.verdict import Status
from fdjax.verify.rows import Standing, Tally

__all__ = ["ProgressDisplay", "summary"]

REDRAW_S = 0.1
LINE_S = 30.0
"""Time between two lines where the output is no terminal."""
_COLOURS = {
    Status.VERIFIED: "green",
    Status.REJECTED: "yellow",
    Status.UNSAFE: "magenta",
    Status.TIMEOUT: "blue",
    Status.CRASHED: "red",
}


class ProgressDisplay:
    """A bar on a terminal, elsewhere a line now and then; a context manager."""

    def __init__(self, console: Console, standing: Standing) -> None:
        """Prepare.

        Args:
          console: where to draw.
          standing: the input's size and the verdicts, which the run goes on counting.
        """
        self._console = console
        self._total = standing.total
        self._tally = standing.tally
        self._before = standing.tally.decided
        self._begin = self._last = time.monotonic()
        self._interval_s = REDRAW_S if console.is_terminal else LINE_S
        self._progress: Progress | None = None
        if console.is_terminal:
            self._progress = _bar(console)
            self._task = self._progress.add_task(
                "", total=standing.total, rate="", counts=""
            )

    @property
    def seconds(self) -> float:
        """Wall time since the beginning; positive."""
        return max(time.monotonic() - self._begin, 1e-9)

    @property
    def decided(self) -> int:
        """Rows decided since the display was made; CRASHED is no decision."""
        return self._tally.decided - self._before

    def update(self) -> None:
        """Show what is decided by now, if it is time to."""
        now = time.monotonic()
        if now - self._last >= self._interval_s:
            self._last = now
            self._show()

    def __enter__(self) -> "ProgressDisplay":
        if self._progress is not None:
            self._progress.start()
        self._begin = self._last = time.monotonic()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._progress is not None:
            self._show()
            self._progress.stop()

    def _show(self) -> None:
        done = self._tally.decided
        rate = self.decided / self.seconds
        if self._progress is not None:
            self._progress.update(
                self._task,
                completed=done,
                rate=f"{rate:,.1f}/s",
                counts=_counts(self._tally, colours=True),
            )
            return
        left = duration((self._total - done) / rate) if rate > 0 else "unknown time"
        self._console.print(
            f"{done:,} of {self._total:,} rows, {rate:,.1f}/s, {left} left: "
            f"{_counts(self._tally)}",
            soft_wrap=True,
            highlight=False,
        )


def summary(
    path: Path,
    tally: Tally,
    *,
    statistics: Statistics,
    decided: int,
    seconds: float,
) -> RenderableType:
    """The table at the end of a run.

    Args:
      path: the file of verdicts.
      tally: all verdicts in it.
      statistics: the verifier's counts in this run.
      decided: rows decided in this run.
      seconds: wall time of this run.
    """
    table = Table()
    table.add_column("status")
    table.add_column("rows", justify="right")
    table.add_column("share", justify="right")
    for status in Status:
        count = tally.statuses[status]
        table.add_row(
            f"[{_COLOURS[status]}]{status.value}[/]",
            f"{count:,}",
            f"{count / tally.rows:.1%}",
        )
    table.add_section()
    table.add_row("all", f"{tally.rows:,}", "")
    facts = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 2))
    for name, value in (
        ("verdicts", escape(str(path))),
        ("seconds a proof", _spread(tally.seconds)),
        ("this run", f"{decided:,} rows in {duration(seconds)}"),
        ("rate", f"{decided / seconds:,.1f} proofs/s"),
        ("from the cache", f"{statistics.cached:,}"),
        ("workers replaced", f"{statistics.restarts:,}"),
        ("broken statements", f"{statistics.broken_statements:,}"),
    ):
        facts.add_row(name, value)
    return Group(table, facts)


def _spread(seconds: "array[float]") -> str:
    if not seconds:
        return "—"
    ordered = sorted(seconds)
    middle, high = (ordered[math.ceil(q * len(ordered)) - 1] for q in (0.5, 0.95))
    return f"median {middle:.3f}, 95th {high:.3f}, longest {ordered[-1]:.3f}"


def _bar(console: Console) -> Progress:
    # Figures keep their width in a narrow terminal; the counts alone give way.
    whole = Column(no_wrap=True)
    return Progress(
        BarColumn(bar_width=16),
        MofNCompleteColumn(table_column=whole),
        TextColumn("{task.fields[rate]}", table_column=whole),
        TimeRemainingColumn(table_column=whole),
        TextColumn("{task.fields[counts]}", table_column=Column(overflow="ellipsis")),
        console=console,
    )


def _counts(tally: Tally, *, colours: bool = False) -> str:
    parts = []
    for status in Status:
        if count := tally.statuses[status]:
            text = f"{status.value} {count:,}"
            parts.append(f"[{_COLOURS[status]}]{text}[/]" if colours else text)
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """A time that a person can read at a glance."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
