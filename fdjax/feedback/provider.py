"""What a feedback provider receives and returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fdjax.errors import DataError
from fdjax.lean import Verdict
from fdjax.records import Problem, is_unicode

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

    def __post_init__(self) -> None:
        if isinstance(self.parts, str) or not all(map(_is_text, self.parts)):
            raise DataError(
                "expected parts of feedback as a tuple of texts in valid Unicode, got "
                f"{self.parts!r}: put each text between the brackets of a tuple"
            )

    @property
    def available(self) -> bool:
        """Whether it tells a teacher anything."""
        return self.error is None and bool(self.text.strip())

    @property
    def text(self) -> str:
        """The whole feedback as the teacher reads it."""
        return "\n".join(self.parts)


@runtime_checkable
class Provider(Protocol):
    """Writes feedback; a failure is a `Feedback` with an error.

    An exception, or a list of another length, costs the rollout all its feedback.
    """

    def write(self, attempts: Sequence[Attempt]) -> list[Feedback]:
        """Feedback on each attempt, in order."""
        ...


def _is_text(part: object) -> bool:
    """Whether a tokenizer can read it; an API's JSON may hold lone surrogates."""
    return isinstance(part, str) and is_unicode(part)
