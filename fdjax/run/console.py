"""What a person sees while an experiment runs: progress bars, tables, verdicts."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from fdjax.eval import Estimate, Evaluation, mean_estimate
from fdjax.objects import Place, remote
from fdjax.plots import headline_ks

__all__ = ["Display", "linked"]

_BADGES = {
    "shown": "[bold green]shown[/]",
    "not shown": "[bold yellow]not shown[/]",
    "contradicted": "[bold red]contradicted[/]",
}


def linked(page: Place) -> str:
    """Markup of a page that a click opens; of one in a store, its address."""
    if remote(page):
        return escape(str(page))
    return f"[link=file://{page.absolute()}]{escape(str(page))}[/link]"


class Display:
    """A console with progress bars; the library below it prints nothing."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console()

    @classmethod
    def silent(cls) -> "Display":
        """Of the processes beside the first: what they see, it has said."""
        return cls(Console(quiet=True))

    @contextmanager
    def task(
        self, title: str, total: int | None
    ) -> Iterator[Callable[[int, str], None]]:
        """A progress bar; yields `set(completed, note)`."""
        # Figures keep their width in a narrow terminal; the note alone gives way.
        columns = (
            TextColumn("{task.description}", table_column=_fixed(min_width=19)),
            BarColumn(bar_width=8),
            MofNCompleteColumn(table_column=_fixed(min_width=9)),
            TimeElapsedColumn(table_column=_fixed()),
            TimeRemainingColumn(table_column=_fixed()),
            TextColumn(
                "[dim]{task.fields[note]}", table_column=Column(overflow="ellipsis")
            ),
        )
        with Progress(*columns, console=self.console) as progress:
            bar = progress.add_task(title, total=total, note="")

            def set_completed(completed: int, note: str = "") -> None:
                progress.update(bar, completed=completed, note=note)

            yield set_completed

    def say(self, text: str) -> None:
        """One line of text, rich markup allowed."""
        self.console.print(text)

    def table(self, markdown: str) -> None:
        """Text as it is: nothing in it is markup, and lines keep their length."""
        self.console.print(markdown, markup=False, highlight=False, soft_wrap=True)

    def summary(self, title: str, evaluation: Evaluation) -> None:
        """The table of arms and the claims with their verdicts."""
        ks = headline_ks(evaluation.ks)
        wide = self.console.width >= 112
        about = "mean, 95 % interval over theorems" if wide else "mean over theorems"
        table = Table(title=f"{title} ({about})")
        table.add_column("arm")
        for k in ks:
            table.add_column(f"pass@{k}", justify="right")
        table.add_column("entropy", justify="right")
        table.add_column("distinct", justify="right")
        for arm in evaluation.arms:
            cells = []
            for k in ks:
                estimate = mean_estimate(arm.pass_at_k(k))
                cells.append(_cell(estimate, wide) if estimate else "—")
            entropy = mean_estimate(arm.entropy())
            cells.append(f"{entropy.value:.3f}" if entropy else "—")
            distinct = sum(arm.distinct_proofs) / len(arm.distinct_proofs)
            table.add_row(arm.arm, *cells, f"{distinct:.2f}")
        self.console.print(table)
        for claim in evaluation.claims:
            self.console.print(
                f"{_BADGES[claim.verdict]}  {claim.statement}  "
                f"[dim]difference {claim.difference:+.3f} "
                f"({claim.low:+.3f} to {claim.high:+.3f})[/]"
            )

    def times(self, seconds: Mapping[str, float]) -> None:
        """Wall time of each part of the run."""
        parts = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
        self.say(f"[dim]wall time: {parts}; total {sum(seconds.values()):.0f} s[/]")


def _cell(estimate: Estimate, wide: bool) -> str:
    interval = f" [dim]{estimate.low:.2f}–{estimate.high:.2f}[/]" if wide else ""
    return f"{estimate.value:.3f}{interval}"


def _fixed(min_width: int | None = None) -> Column:
    return Column(no_wrap=True, min_width=min_width)
