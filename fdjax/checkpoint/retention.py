"""Which checkpoints of a folder stay."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fdjax.ranges import Among, TupleOf, Whole, require_fields

__all__ = ["Retention"]


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Which checkpoints stay: those that any of these fields names."""

    newest: int | None = 2
    """How many of the newest; all of them with None."""
    every: int | None = None
    """Those of every so many iterations, which have one in any case."""
    steps: tuple[int, ...] = ()
    """Those of these iterations, which have one in any case."""
    best: int = 0
    """How many of those with the best value of `metric`."""
    metric: str = "reward/mean"
    """A name of the rows of metrics.jsonl. A checkpoint has the value of the newest row
    at it; of several with one value the first counts as the best."""
    best_is: Literal["highest", "lowest"] = "highest"
    """Which value of `metric` is the best."""

    def __post_init__(self) -> None:
        require_fields(
            self,
            steps=TupleOf(Whole(1)),
            best=Whole(0),
            best_is=Among("highest", "lowest"),
        )
        for name in ("newest", "every"):
            if getattr(self, name) is not None:
                require_fields(self, **{name: Whole(1)})

    def names(self, step: int) -> bool:
        """Whether the checkpoint of a step stays because of its number."""
        regular = self.every is not None and step % self.every == 0
        return regular or step in self.steps

    def kept(self, values: Mapping[int, float | None]) -> set[int]:
        """Steps of the checkpoints that stay.

        Args:
          values: step of each checkpoint to its value of `metric`; None or NaN where
            no row has one.
        """
        steps = sorted(values)
        newest = steps if self.newest is None else steps[-self.newest :]
        sign = -1 if self.best_is == "highest" else 1
        ranked = sorted(
            (sign * value, step)
            for step, value in values.items()
            if value is not None and not math.isnan(value)
        )
        best = [step for _, step in ranked[: self.best]]
        return {*newest, *best, *filter(self.names, steps)}
