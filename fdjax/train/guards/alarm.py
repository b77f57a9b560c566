"""An alarm: a metric, a bound, and how many rows beyond it are too many."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fdjax.errors import ConfigError
from fdjax.ranges import FLAG, Number, Whole, require_fields

__all__ = ["Alarm", "Beyond"]


class Beyond(NamedTuple):
    """A value and the bound that it is beyond."""

    value: float
    bound: float


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A metric that has been beyond a bound for `patience` rows in a row.

    The bound is absolute, or a multiple of the median over the rows before. A function
    of the values alone: a resumed run is alarmed where an uninterrupted one is.

    >>> crashes = Alarm(
    ...     guard="crashed", metric="verdict/crashed", above=0.5, patience=2
    ... )
    >>> crashes.beyond([0.0, 0.9, 0.1]), crashes.beyond([0.1, 0.9, 0.8])
    (None, Beyond(value=0.8, bound=0.5))
    """

    guard: str
    """Its name, in events and settings; several alarms may share one."""
    metric: str
    """A name of the rows of metrics.jsonl."""
    above: float | None = None
    """Larger values are beyond. Give this or `below`."""
    below: float | None = None
    """Smaller values are beyond."""
    median_of: int = 0
    """Rows before the value whose median the bound is a multiple of; with 0 the bound
    is in the metric's unit."""
    floor: float = 0.0
    """A multiple of a median that is smaller counts as this, in the metric's unit."""
    window: int = 1
    """Rows whose mean is held against the bound."""
    patience: int = 1
    """Rows beyond the bound, one after the other."""
    stop: bool = False
    """Whether the run ends; it goes on after a warning by default."""
    advice: str = ""
    """Cause and remedy, for people."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            median_of=Whole(0),
            window=Whole(1),
            patience=Whole(1),
            floor=Number(least=0),
            stop=FLAG,
        )
        if (self.above is None) == (self.below is None):
            raise ConfigError(
                f"expected Alarm {self.guard} with either above or below, got "
                f"{self.above} and {self.below}"
            )
        require_fields(self, **{"below" if self.above is None else "above": Number()})

    @property
    def rows(self) -> int:
        """Newest values that `beyond` reads."""
        return self.patience + self.window + self.median_of - 1

    def beyond(self, values: Sequence[float]) -> Beyond | None:
        """The newest mean and its bound, if it and those before it are beyond theirs.

        Args:
          values: of the metric, finite, one a row, the newest last.
        """
        found: Beyond | None = None
        for end in range(len(values) - self.patience + 1, len(values) + 1):
            found = self._beyond(values, end)
            if found is None:
                return None
        return found

    def _beyond(self, values: Sequence[float], end: int) -> Beyond | None:
        start = end - self.window
        if start < self.median_of:
            return None
        value = math.fsum(values[start:end]) / self.window
        limit = self.above if self.above is not None else self.below
        assert limit is not None  # `__post_init__` saw to it
        if self.median_of:
            median = statistics.median(values[start - self.median_of : start])
            limit = max(limit * median, self.floor)
        out = value > limit if self.above is not None else value < limit
        return Beyond(value, limit) if out else None
