"""When a metric has stopped rising, by the rows that were logged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fdjax.ranges import Number, Whole, require_fields

__all__ = ["Plateau"]


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """A metric that has stopped rising.

    The metric is averaged over the newest `window` rows. A row raises it if this
    average exceeds the highest so far by `least_gain`; after `patience` rows in a row
    that do not, the plateau is reached. Slow but steady growth counts: rows that stay
    below the gain do not move the mark that later ones must exceed.
    """

    metric: str = "reward/mean"
    """A name of the rows of metrics.jsonl."""
    window: int = 5
    """Rows in the average; rows in which the metric is undefined are left out."""
    least_gain: float = 0.01
    """By how much the average must rise, in the metric's unit."""
    patience: int = 10
    """Rows without such a rise."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            window=Whole(1),
            least_gain=Number(above=0),
            patience=Whole(1),
        )

    def reached(self, values: Sequence[float]) -> bool:
        """Whether it is, after rows with these values."""
        highest, idle = -math.inf, 0
        for end in range(self.window, len(values) + 1):
            average = math.fsum(values[end - self.window : end]) / self.window
            if average >= highest + self.least_gain:
                highest, idle = average, 0
            else:
                idle += 1
        return idle >= self.patience
