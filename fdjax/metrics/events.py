"""What the guards of a run said, one row an event, for people and for the report."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fdjax.metrics.lines import RowWriter, read_rows

__all__ = ["Event", "EventWriter", "read_events"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """A guard spoke up."""

    arm: str
    """The phase."""
    step: int
    """Its iterations."""
    guard: str
    """Name of the guard."""
    metric: str
    """What it looks at."""
    value: float
    """Of the metric; NaN and infinities become null in the file."""
    bound: float
    """That the value is beyond."""
    action: Literal["warn", "stop", "dump"]
    """What followed: a warning, the end of the run, a file to look at."""
    file: str | None = None
    """To look at, relative to the run's folder."""


class EventWriter(RowWriter):
    """Writer of `events.jsonl`: the fields of `Event`."""

    def write(self, event: Event) -> None:
        """Appends one event."""
        self._append(asdict(event))


def read_events(path: Path) -> list[dict[str, Any]]:
    """Rows of a file of events in the order written, without a torn last line.

    Raises:
      DataError: the file is missing, or a line before the last is not a row.
    """
    return read_rows(path)
