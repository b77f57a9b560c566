"""What a feedback writer receives and returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self, runtime_checkable

from fdjax.errors import DataError
from fdjax.feedback.failure import Kind
from fdjax.feedback.leak import Leak
from fdjax.feedback.usage import Usage
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
    """Why the writer has nothing to say, for people; such a sample is masked out."""
    kind: Kind | None = None
    """Kind of the failure; None where there is feedback. If nobody says, it is `failed`
    for an error, and `empty` for feedback without a word."""
    usage: Usage = field(default_factory=Usage)
    """What it cost."""
    leak: Leak | None = None
    """What it gives away of a known proof, before lines were left out; None where that
    was not measured."""
    stripped_lines: int = 0
    """Lines left out because they told a known proof."""

    def __post_init__(self) -> None:
        if isinstance(self.parts, str) or not all(map(_is_text, self.parts)):
            raise DataError(
                "expected parts of feedback as a tuple of texts in valid Unicode, got "
                f"{self.parts!r}: put each text between the brackets of a tuple"
            )
        if self.kind is not None and self.available:
            raise DataError(
                f"expected feedback or a kind of failure, got both, {self.text!r} and "
                f"{self.kind}: leave one of the two out"
            )
        if self.kind is None and not self.available:
            kind = Kind.EMPTY if self.error is None else Kind.FAILED
            object.__setattr__(self, "kind", kind)

    @classmethod
    def failed(cls, kind: Kind, what: str, *, usage: Usage | None = None) -> Self:
        """No feedback, and why.

        Args:
          kind: kind of the failure, for counts.
          what: what happened, for people.
          usage: what it cost all the same.
        """
        return cls(error=f"{kind}: {what}", kind=kind, usage=usage or Usage())

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
