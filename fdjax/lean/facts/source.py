"""What Lean is given for a submission, and where its messages point."""

import re
from dataclasses import dataclass

from fdjax.lean.facts.backend import (
    CheckRequest,
    Place,
    RawMessage,
    RawReport,
    WholeFile,
)
from fdjax.lean.facts.verdict import Diagnostic, Goal

__all__ = [
    "File",
    "Splice",
    "Trusted",
    "alone",
    "as_read",
    "body_of",
    "goals_of",
    "opening_of",
    "source_of",
    "splice",
    "trusted_source",
]

PROOF_OPENING = ":= by\n"
PLACEHOLDER = ":= sorry"
"""Stands for a proof where the statement alone is elaborated."""


@dataclass(frozen=True, kw_only=True)
class Splice:
    """A statement with a proof, and where the proof begins."""

    text: str
    """Lean source: statement, `:= by` on a line of its own, proof."""
    opening_line: int
    """1-based line of our `:= by`."""

    def diagnostic(self, message: RawMessage) -> Diagnostic:
        """The message with its position counted from the proof's first line.

        A message at our own `:= by`, such as unsolved goals, is about the whole
        proof and points at its beginning.
        """
        in_proof = message.line >= self.opening_line
        end = message.end
        if end is not None and (end[0] >= self.opening_line) != in_proof:
            end = None
        return _diagnostic(
            message,
            self._shift(message.start),
            end and self._shift(end),
            in_proof=in_proof,
        )

    def _shift(self, place: Place) -> Place:
        line, column = place
        if line < self.opening_line:
            return place
        if line == self.opening_line:
            return 1, 0
        return line - self.opening_line, column


@dataclass(frozen=True, kw_only=True)
class File:
    """A whole file; its messages point where Lean says."""

    text: str
    """Lean source, imports included."""

    def diagnostic(self, message: RawMessage) -> Diagnostic:
        """The message, unchanged."""
        return _diagnostic(message, message.start, message.end)


@dataclass(frozen=True, kw_only=True)
class Trusted:
    """A header or a statement that cannot be used; messages point into it."""

    text: str
    """The header or the statement itself."""
    is_header: bool = False

    def diagnostic(self, message: RawMessage) -> Diagnostic:
        """The message; what is said about our own text points at the text's end."""
        last = self._end
        end = message.end and min(message.end, last)
        return _diagnostic(message, min(message.start, last), end, in_proof=False)

    def remedy(self, messages: tuple[RawMessage, ...]) -> str:
        """What to do when Lean misses something behind the text; else empty."""
        if not any(self._is_behind(m) for m in messages if m.severity == "error"):
            return ""
        if self.is_header:
            return (
                "the header ends inside a command; a doc comment, `… in` or attributes "
                "before the theorem belong to the statement"
            )
        return "the statement must end where `:= by` and a proof can follow"

    @property
    def _end(self) -> Place:
        """Where the text ends."""
        lines = self.text.split("\n")
        return len(lines), len(lines[-1])

    def _is_behind(self, message: RawMessage) -> bool:
        """Whether Lean's parser did not expect the end, or our `:=` behind it.

        It gives a token that it did not expect, and the blanks before, as a span.
        """
        if message.end is None:
            return message.start >= self._end
        return message.end == (self._end[0] + 1, len(":="))


def _diagnostic(
    message: RawMessage, start: Place, end: Place | None, *, in_proof: bool = True
) -> Diagnostic:
    """A message at another place."""
    end_line, end_column = end or (None, None)
    return Diagnostic(
        severity=message.severity,
        line=start[0],
        column=start[1],
        end_line=end_line,
        end_column=end_column,
        kind=message.kind,
        text=message.text,
        in_proof=in_proof,
    )


def source_of(request: CheckRequest) -> Splice | File:
    """What is elaborated after the header for a submission."""
    if isinstance(request.proof, WholeFile):
        return File(text=body_of(request.proof, request.header))
    return splice(request.statement, request.proof or "")


def trusted_source(request: CheckRequest, report: RawReport) -> Trusted:
    """The header or the statement, whichever a report calls unusable."""
    if report.in_header:
        return Trusted(text=as_read(request.header), is_header=True)
    return Trusted(text=as_read(request.statement.rstrip()))


def splice(statement: str, proof: str) -> Splice:
    """Put `proof` after `statement` and `:= by`, which has a line of its own.

    The statement may end in a comment up to the end of its line.
    """
    before = _opened(statement)
    return Splice(
        text=before + PROOF_OPENING + proof, opening_line=before.count("\n") + 1
    )


def alone(statement: str) -> str:
    """A statement as it is elaborated without any proof."""
    return _opened(statement) + PLACEHOLDER


def opening_of(statement: str) -> int:
    """Where our own `:=` begins in both, in bytes of UTF-8 as Lean counts them."""
    before = as_read(_opened(statement))
    return len(before.encode("utf-8", "surrogatepass"))


def as_read(text: str) -> str:
    """A text with the line breaks that Lean makes of its own."""
    return text.replace("\r\n", "\n")


def _opened(statement: str) -> str:
    return statement.rstrip() + "\n"


def body_of(file: WholeFile, header: str) -> str:
    """The file with a leading copy of the problem's header replaced by blanks.

    The header has been elaborated by then; a definition in it would be there twice.
    Lines and columns stay what they were, and lines end as Lean's own do.
    """
    text, header = as_read(file.text), as_read(header).strip()
    start = len(text) - len(text.lstrip())
    end = start + len(header)
    repeats = header and text.startswith(header, start)
    if not repeats or text[end:].partition("\n")[0].strip():
        return text
    return text[:start] + re.sub(r"[^\n]", " ", header) + text[end:]


def goals_of(diagnostics: tuple[Diagnostic, ...]) -> tuple[Goal, ...]:
    """The open goals that the errors print: blocks with a line that starts with ⊢."""
    goals = []
    for diagnostic in diagnostics:
        if diagnostic.severity != "error":
            continue
        for block in diagnostic.text.split("\n\n"):
            lines = block.split("\n")
            if not any(line.startswith("⊢") for line in lines):
                continue
            if lines[0].startswith("unsolved goals"):
                lines = lines[1:]
            goals.append(
                Goal(
                    text="\n".join(lines),
                    line=diagnostic.line,
                    column=diagnostic.column,
                )
            )
    return tuple(goals)
