"""What a feedback provider receives and returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fdjax.lean import Verdict
from fdjax.records import Problem

__all__ = ["Attempt", "Feedback", "Provider"]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One proof that the policy wrote, and what Lean said of it."""

    problem: Problem
    proof: str
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """Privileged text about an attempt, or the reason why there is none."""

    parts: tuple[str, ...] = ()
    """Lines of feedback, the most important first; empty when unavailable."""
    offset: int | None = None
    """Character of the attempt from which the feedback speaks against it; None where it
    does not. Beyond it a teacher reads a proof that its feedback would have changed."""
    error: str | None = None
    """Why the provider has nothing to say; such a sample is masked out."""

    @property
    def available(self) -> bool:
        """Whether a teacher can be conditioned on this feedback."""
        return self.error is None

    @property
    def text(self) -> str:
        """The whole feedback as the teacher reads it."""
        return "\n".join(self.parts)


@runtime_checkable
class Provider(Protocol):
    """Writes feedback; a failure is a `Feedback` with an error, never an exception."""

    def write(self, attempts: Sequence[Attempt]) -> list[Feedback]:
        """Feedback on each attempt, in order."""
        ...
