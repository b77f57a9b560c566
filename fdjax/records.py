"""Plain records shared by the device world and the host world (no JAX)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["Mean", "Metrics", "Problem"]


class Mean(NamedTuple):
    """A weighted mean kept as its two sums, so that shards and microbatches add.

    A NamedTuple is a JAX pytree, so a `Mean` may hold arrays under `jax.jit`.
    """

    total: Any
    """Weighted sum of the values."""
    weight: Any
    """Sum of the weights."""

    def __add__(self, other: "Mean") -> "Mean":  # type: ignore[override]
        return Mean(self.total + other.total, self.weight + other.weight)

    def value(self) -> float:
        """The mean as a Python float; NaN when nothing was counted."""
        weight = float(self.weight)
        return float(self.total) / weight if weight else float("nan")


Metrics = dict[str, Mean]
"""Metric name (`area/name`) to its weighted mean."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A theorem to prove."""

    name: str
    """Name of the theorem that the statement declares."""
    statement: str
    """Lean source from `theorem` up to, not including, `:=`."""
    header: str = ""
    """Trusted Lean source before the statement: imports, opens, options."""
    references: tuple[str, ...] = ()
    """Known proofs as tactic text, each line indented by two spaces."""
    family: str = ""
    """Where the problem comes from, for reports."""
    difficulty: int = 0
    """Tactics in the shortest reference; 0 when unknown."""
