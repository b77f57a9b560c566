"""Alarms over the rows of a phase: what they have seen, and what they find."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from fdjax.train.guards.alarm import Alarm, Beyond

__all__ = ["Finding", "Watch"]

_LARGEST = 1e300
"""Infinities count as this: JSON has none, and sums of a few stay finite."""


class Finding(NamedTuple):
    """An alarm that has just been raised."""

    alarm: Alarm
    at: Beyond


@dataclass(frozen=True)
class Watch:
    """What the alarms have seen of a phase; small, and JSON in a checkpoint."""

    alarms: tuple[Alarm, ...] = ()
    seen: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """The newest values of each metric, as many as an alarm reads."""
    dumps: int = 0
    """Batches of skipped steps that were written."""

    def after(self, row: Mapping[str, float]) -> tuple["Watch", list[Finding]]:
        """With one row more, and the alarms that it raises.

        A row in which a metric is undefined is left out. An alarm that only warns is
        raised by the first row that is one too many; one that stops by each: a run
        that is resumed while its cause lasts stops again.
        """
        seen = dict(self.seen)
        findings: list[Finding] = []
        for metric in dict.fromkeys(alarm.metric for alarm in self.alarms):
            value = float(row.get(metric, math.nan))
            if math.isnan(value):
                continue
            value = min(max(value, -_LARGEST), _LARGEST)
            alarms = [alarm for alarm in self.alarms if alarm.metric == metric]
            values = (*self.seen.get(metric, ()), value)
            findings += [
                Finding(alarm, beyond)
                for alarm in alarms
                if (beyond := _raised(alarm, values)) is not None
            ]
            # One more than is read, to know whether an alarm was raised before.
            seen[metric] = values[-max(alarm.rows for alarm in alarms) - 1 :]
        return replace(self, seen=seen), findings

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint's JSON holds of it."""
        seen = {metric: list(values) for metric, values in self.seen.items()}
        return {"seen": seen, "dumps": self.dumps}

    @classmethod
    def from_state(cls, alarms: Sequence[Alarm], state: Mapping[str, Any]) -> "Watch":
        """The watch that `get_state` told of, perhaps with other alarms."""
        seen = {
            metric: tuple(values) for metric, values in state.get("seen", {}).items()
        }
        return cls(tuple(alarms), seen, state.get("dumps", 0))


def _raised(alarm: Alarm, values: Sequence[float]) -> Beyond | None:
    beyond = alarm.beyond(values)
    before = None if alarm.stop else alarm.beyond(values[:-1])
    return beyond if before is None else None
