"""The least time that a chip needs: for its products, its memory, or its links."""

from dataclasses import dataclass
from typing import Literal

from fdjax.plan.chips import Chip
from fdjax.plan.counts import Work

__all__ = ["Floor", "Term", "floor"]

Term = Literal["compute", "memory", "links"]


@dataclass(frozen=True, kw_only=True)
class Floor:
    """Seconds that something takes at least, if each of three were all that counts."""

    compute_s: float = 0.0
    memory_s: float = 0.0
    links_s: float = 0.0

    @property
    def seconds(self) -> float:
        """The longest: the three may overlap, and none is faster than its peak."""
        return max(self.compute_s, self.memory_s, self.links_s)

    @property
    def binds(self) -> Term:
        """Which it is."""
        terms: dict[Term, float] = {
            "compute": self.compute_s,
            "memory": self.memory_s,
            "links": self.links_s,
        }
        return max(terms, key=lambda term: terms[term])

    def times(self, count: float) -> "Floor":
        """Of so many, one after the other."""
        return Floor(
            compute_s=count * self.compute_s,
            memory_s=count * self.memory_s,
            links_s=count * self.links_s,
        )


def floor(chip: Chip, work: Work, received: float = 0.0) -> Floor:
    """Of what a device has to do at least.

    Args:
      chip: its peaks.
      work: products, and bytes to and from its memory.
      received: bytes from other chips, over all links at once.
    """
    return Floor(
        compute_s=work.flops / chip.flops,
        memory_s=work.moved / chip.bandwidth,
        links_s=received / chip.received,
    )
