"""What a feedback writer receives and returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fdjax.errors import DataError
from fdjax.judge import Judgement
from fdjax.lean import Verdict
from fdjax.records import Problem, is_unicode

__all__ = ["Attempt", "Feedback", "Writer"]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What the policy wrote on a problem, and what the judge said of it."""

    problem: Problem
    text: str
    """The whole completion, reasoning included."""
    judgement: Judgement

    @property
    def proof(self) -> str:
        """The part that was judged."""
        return self.judgement.answer

    @property
    def verdict(self) -> Verdict | None:
        """Lean's verdict; None where another judge decided."""
        return self.judgement.verdict


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """Privileged text about an attempt, or the reason why there is none."""

    parts: tuple[str, ...] = ()
    """Lines of feedback, the most important first; empty when unavailable."""
    offset: int | None = None
    """Character of the attempt from which the feedback speaks against it; None where it
    does not. Beyond it a teacher reads a proof that its feedback would have changed."""
    error: str | None = None
    """Why the writer has nothing to say; such a sample is masked out."""

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
class Writer(Protocol):
    """Writes feedback; a failure is a `Feedback` with an error.

    An exception, or a list of another length, costs the group all its feedback; a
    `FeedbackError` ends the run.
    """

    async def write(self, group: Sequence[Attempt]) -> list[Feedback]:
        """Feedback on each attempt at one problem, in order.

        Attempts that were not judged are not among them. Several calls are under way at
        once, on one event loop.
        """
        ...


def _is_text(part: object) -> bool:
    """Whether a tokenizer can read it; an API's JSON may hold lone surrogates."""
    return isinstance(part, str) and is_unicode(part)
