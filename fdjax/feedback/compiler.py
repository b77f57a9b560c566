"""Feedback made of Lean's own messages, without any model."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fdjax.feedback.failure import Kind
from fdjax.feedback.writer import Attempt, Feedback
from fdjax.lean import Diagnostic, Status
from fdjax.ranges import Whole, require_fields

__all__ = ["UNSOLVED", "CompilerFeedback", "error_line", "error_offset"]

UNSOLVED = "Tactic.unsolvedGoals"
"""Lean's own tag of the message that lists goals left open."""


@dataclass(frozen=True, kw_only=True)
class CompilerFeedback:
    """Lists Lean's first errors, each with its line in the attempt."""

    max_errors: int = 1
    """Errors to show; Lean's later ones are often consequences of the first."""
    max_message_characters: int = 60
    """Length of a message; a longer one is cut after a whole word."""

    def __post_init__(self) -> None:
        require_fields(self, max_errors=Whole(1), max_message_characters=Whole(1))

    async def write(self, group: Sequence[Attempt]) -> list[Feedback]:
        """Feedback on each attempt, in order (`Writer`)."""
        return [self._one(attempt) for attempt in group]

    def _one(self, attempt: Attempt) -> Feedback:
        verdict = attempt.verdict
        if verdict is None:
            return Feedback.failed(Kind.UNJUDGED, "by another judge than Lean")
        if verdict.missing:
            return Feedback.failed(Kind.UNJUDGED, verdict.reason)
        match verdict.status:
            case Status.VERIFIED:
                return Feedback(parts=("verified: this proof is complete",))
            case Status.TIMEOUT:
                return Feedback(parts=("error: time limit exceeded",))
            case Status.UNSAFE:
                return Feedback(parts=(f"error: not allowed: {verdict.reason}",))
        errors = verdict.errors
        if not errors:
            return Feedback(parts=(f"error: {verdict.reason}",))
        lines = attempt.proof.count("\n") + 1
        return Feedback(
            parts=tuple(
                self._describe(error, lines) for error in errors[: self.max_errors]
            ),
            offset=error_offset(attempt),
        )

    def _describe(self, error: Diagnostic, lines: int) -> str:
        place = f"line {error_line(error, lines)}"
        return f"error at {place}: {self._shorten(error.text)}"

    def _shorten(self, message: str) -> str:
        """The message's first sentence on one line, cut after a whole word."""
        first = re.split(r"\n|(?<=[^.])[.:](?= |\n|$)", message.strip(), maxsplit=1)[0]
        words = first.split()
        text = ""
        for word in words:
            if len(text) + 1 + len(word) > self.max_message_characters and text:
                break
            text = f"{text} {word}" if text else word
        return text


def error_offset(attempt: Attempt) -> int | None:
    """Characters of the proof up to the end of the line of its first error.

    None where Lean names no error.
    """
    verdict = attempt.verdict
    if verdict is None or not verdict.errors:
        return None
    lines = attempt.proof.split("\n")
    return len("\n".join(lines[: error_line(verdict.errors[0], len(lines))]))


def error_line(error: Diagnostic, lines: int) -> int:
    """The attempt's line that an error is about.

    Goals left open at the end are reported where the proof begins, at its `by`; the
    line to change is then the last.
    """
    at_start = (error.line, error.column) == (1, 0)
    if not error.in_proof or (error.kind == UNSOLVED and at_start):
        return lines
    return min(error.line, lines)
