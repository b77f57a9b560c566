"""Plain records shared by the device world and the host world (no JAX)."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from fdjax.errors import ConfigError

__all__ = ["Mean", "Metrics", "Problem", "Status", "is_unicode", "union"]

Value = TypeVar("Value")


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


def union(*parts: Mapping[str, Value]) -> dict[str, Value]:
    """The metrics of several sources as one dict; no two may share a name.

    >>> union({"fd/divergence": 0.1}, {"grpo/log_ratio": 0.2})
    {'fd/divergence': 0.1, 'grpo/log_ratio': 0.2}

    Raises:
      ConfigError: a name is in two of them: one value would hide the other.
    """
    joined: dict[str, Value] = {}
    for part in parts:
        common = sorted(joined.keys() & part.keys())
        if common:
            raise ConfigError(
                f"expected metrics of different names, got {', '.join(common)} twice: "
                "rename one or leave it out"
            )
        joined.update(part)
    return joined


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A theorem to prove."""

    name: str
    """Name of the theorem that the statement declares."""
    statement: str
    """Lean source from `theorem` up to, not including, `:=`."""
    header: str = ""
    """Trusted Lean source before the statement: imports, opens, options."""
    informal: str = ""
    """What the theorem says in words, for prompts; Lean never reads it."""
    references: tuple[str, ...] = ()
    """Known proofs as tactic text, each line indented by two spaces."""
    family: str = ""
    """Where the problem comes from, for reports."""
    difficulty: int = 0
    """Tactics in the shortest reference; 0 when unknown."""


class Status(enum.Enum):
    """Outcome of checking one proof; see `docs/lean.md` for the exact meanings.

    Wherever statuses are counted or shown, they come in this order.
    """

    VERIFIED = "verified"
    """The kernel accepted a theorem with exactly the trusted statement."""
    REJECTED = "rejected"
    """Lean refused the proof, or it rests on `sorry` or a foreign axiom."""
    UNSAFE = "unsafe"
    """The text may not be run, or it does not stay inside the proof."""
    TIMEOUT = "timeout"
    """The proof's own elaboration used up its time or memory limit."""
    CRASHED = "crashed"
    """The checker failed, which says nothing about the proof: mask the sample."""

    @property
    def decided(self) -> bool:
        """Whether it says anything about the proof."""
        return self is not Status.CRASHED


def is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates, which JSON can spell and no UTF-8 is."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
