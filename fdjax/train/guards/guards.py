"""What a run does when a guard speaks up: a row, a warning, or the end."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fdjax.errors import FdjaxError
from fdjax.metrics import Event, EventWriter
from fdjax.train.guards.alarm import Alarm
from fdjax.train.guards.watch import Finding, Watch

__all__ = ["UNGUARDED", "AlarmError", "Guards"]

_log = logging.getLogger(__name__)


class AlarmError(FdjaxError, RuntimeError):
    """A guard ended the run; the state is saved."""


@dataclass(frozen=True, kw_only=True)
class Guards:
    """The guards of a run and where they write; by default there are none.

    Which alarm is raised is a function of the rows, and all processes have those of the
    first; it alone has a writer and a folder.
    """

    alarms: tuple[Alarm, ...] = ()
    """On the rows of metrics."""
    events: EventWriter | None = None
    """Receives a row for each time that a guard speaks up."""
    folder: Path | None = None
    """Of the run; batches of skipped steps go into `dumps` in it."""
    dumps: int = 0
    """Batches of skipped steps that are written in each phase, at most."""

    def watch(self, state: Mapping[str, Any]) -> Watch:
        """What the alarms have seen when a phase begins or goes on.

        Args:
          state: of a checkpoint; empty at the beginning.
        """
        return Watch.from_state(self.alarms, state)

    def truncate_after(self, arm: str, step: int) -> None:
        """Drops the events of a phase that are later than a step, before a resume."""
        if self.events is not None:
            self.events.truncate_after(arm, step)

    def note(self, event: Event) -> None:
        """Writes a row of events, where there is a file of them."""
        if self.events is not None:
            self.events.write(event)

    def tell(
        self, arm: str, step: int, findings: Iterable[Finding]
    ) -> AlarmError | None:
        """Writes and says what was found.

        Args:
          arm: the phase.
          step: its iterations.
          findings: of its row.

        Returns:
          An error to raise where one of the alarms ends the run.
        """
        fatal: list[str] = []
        for alarm, (value, bound) in findings:
            self.note(
                Event(
                    arm=arm,
                    step=step,
                    guard=alarm.guard,
                    metric=alarm.metric,
                    value=value,
                    bound=bound,
                    action="stop" if alarm.stop else "warn",
                )
            )
            message = _said(arm, step, alarm, value, bound)
            if alarm.stop:
                fatal.append(message)
            else:
                _log.warning("%s", message)
        if not fatal:
            return None
        return AlarmError(
            f"{' '.join(fatal)} Mend the cause and resume; to be warned only, leave "
            "the guard out of guards.stop."
        )


UNGUARDED = Guards()
"""No alarms and no files."""


def _said(arm: str, step: int, alarm: Alarm, value: float, bound: float) -> str:
    side = "at least" if alarm.above is None else "at most"
    mean = f" over {alarm.window} rows" if alarm.window > 1 else ""
    rows = f", {alarm.patience} rows in a row" if alarm.patience > 1 else ""
    return (
        f"Guard {alarm.guard}, {arm} after {step} iterations: expected "
        f"{alarm.metric}{mean} to be {side} {bound:.4g}, got {value:.4g}{rows}; "
        f"{alarm.advice}."
    )
