"""What a person sees of `fdjax feedback`: progress, and a table at its end."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from fdjax.feedback import Feedback, Usage

__all__ = ["Tally", "progress_bar"]


@dataclass(kw_only=True)
class Tally:
    """What was written so far."""

    attempts: int = 0
    """Attempts that were written about, or failed to be."""
    usage: Usage = field(default_factory=Usage)
    """What that cost."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Missing feedback by the kind of failure."""

    def add(self, notes: Sequence[Feedback]) -> None:
        """Counts the feedback on a group."""
        self.attempts += len(notes)
        self.usage = sum((note.usage for note in notes), self.usage)
        self.kinds.update(str(note.kind) for note in notes if note.kind is not None)

    @property
    def missing(self) -> int:
        """Attempts without feedback."""
        return self.kinds.total()

    def line(self) -> str:
        """What a progress bar says."""
        paid = f"{self.usage.requests:,} requests, {self.usage.tokens:,} tokens"
        if self.usage.cost_usd:
            paid += f", ${self.usage.cost_usd:,.2f}"
        return paid + (f", {self.missing:,} missing" if self.missing else "")

    def table(self, out: Path) -> Table:
        """The summary at the end."""
        usage = self.usage
        table = Table(show_header=False)
        for name, value in (
            ("recording", str(out)),
            ("attempts", f"{self.attempts:,}"),
            ("read from the recording", f"{usage.recorded:,}"),
            ("requests", f"{usage.requests:,}, {usage.retries:,} of them again"),
            ("tokens", f"{usage.input_tokens:,} in, {usage.output_tokens:,} out"),
            ("US dollars", f"{usage.cost_usd:,.2f}"),
            ("characters left out", f"{usage.cut_characters:,}"),
            *((f"missing: {kind}", f"{n:,}") for kind, n in self.kinds.most_common()),
        ):
            table.add_row(name, escape(value))
        return table


def progress_bar(console: Console) -> Progress:
    """Attempts done, time left, and what a `Tally` says as the field `counts`."""
    whole = Column(no_wrap=True)
    return Progress(
        BarColumn(bar_width=16),
        MofNCompleteColumn(table_column=whole),
        TimeRemainingColumn(table_column=whole),
        TextColumn("{task.fields[counts]}", table_column=Column(overflow="ellipsis")),
        console=console,
    )
