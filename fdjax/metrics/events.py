"""What the guards of a run said, one row an event, for people and for the report."""

from pathlib import Path
from typing import Any, Literal

from fdjax.metrics.lines import RowWriter, read_rows

__all__ = ["Action", "EventWriter", "read_events"]

Action = Literal["warn", "stop", "dump"]
"""What followed: a warning, the end of the run, a file to look at."""


class EventWriter(RowWriter):
    """Writer of `events.jsonl`: one row for each time that a guard spoke up."""

    def write(
        self,
        arm: str,
        step: int,
        *,
        guard: str,
        metric: str,
        value: float,
        bound: float,
        action: Action,
        file: str | None = None,
    ) -> None:
        """Appends one event; NaN and infinities become null.

        Args:
          arm: the phase.
          step: its iterations.
          guard: name of the guard.
          metric: what it looks at.
          value: of the metric.
          bound: that the value is beyond.
          action: what followed.
          file: to look at, relative to the run's folder.
        """
        row: dict[str, Any] = {
            "arm": arm,
            "step": step,
            "guard": guard,
            "metric": metric,
            "value": value,
            "bound": bound,
            "action": action,
        }
        self._append(row if file is None else row | {"file": file})


def read_events(path: Path) -> list[dict[str, Any]]:
    """Rows of a file of events in the order written, without a torn last line.

    Raises:
      DataError: the file is missing, or a line before the last is not a row.
    """
    return read_rows(path)
