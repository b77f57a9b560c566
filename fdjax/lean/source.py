"""What Lean is given for a submission, and where its messages point."""

import re
from dataclasses import dataclass

from fdjax.lean.backend import RawMessage, Submission, WholeFile
from fdjax.lean.verdict import Diagnostic, Goal

__all__ = ["File", "Splice", "body_of", "goals_of", "source_of", "splice"]

OPENING = " := by\n"


@dataclass(frozen=True, kw_only=True)
class Splice:
    """A statement with a proof, and where the proof begins."""

    text: str
    """Lean source: statement, ` := by`, proof."""
    opening_line: int
    """1-based line of our `:= by`."""
    opening_column: int
    """0-based column where the statement ends on that line."""

    def diagnostic(self, message: RawMessage) -> Diagnostic:
        """The message with its position counted from the proof's first line.

        A message at our own `:= by`, such as unsolved goals, is about the whole
        proof and points at its beginning.
        """
        in_proof = self._is_after_statement(message.line, message.column)
        line, column = self._shift(message.line, message.column)
        end_line, end_column = None, None
        if message.end_line is not None and message.end_column is not None:
            end = (message.end_line, message.end_column)
            ends_later = (message.line, message.column) < end
            if self._is_after_statement(*end) == in_proof or (in_proof and ends_later):
                end_line, end_column = self._shift(*end)
        return Diagnostic(
            severity=message.severity,
            line=line,
            column=column,
            end_line=end_line,
            end_column=end_column,
            kind=message.kind,
            text=message.text,
            in_proof=in_proof,
        )

    def _is_after_statement(self, line: int, column: int) -> bool:
        return (line, column) >= (self.opening_line, self.opening_column)

    def _shift(self, line: int, column: int) -> tuple[int, int]:
        if not self._is_after_statement(line, column):
            return line, column
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
        return Diagnostic(
            severity=message.severity,
            line=message.line,
            column=message.column,
            end_line=message.end_line,
            end_column=message.end_column,
            kind=message.kind,
            text=message.text,
        )


def source_of(statement: str, header: str, submission: Submission) -> Splice | File:
    """What is elaborated after `header` for a submission."""
    if isinstance(submission, WholeFile):
        return File(text=body_of(submission, header))
    return splice(statement, submission)


def splice(statement: str, proof: str) -> Splice:
    """Put `proof` after `statement := by`."""
    statement = statement.rstrip()
    return Splice(
        text=statement + OPENING + proof,
        opening_line=statement.count("\n") + 1,
        opening_column=len(statement) - (statement.rfind("\n") + 1),
    )


def body_of(file: WholeFile, header: str) -> str:
    """The file with a leading copy of the problem's header replaced by blanks.

    The header has been elaborated by then; a definition in it would be there twice.
    Lines and columns stay what they were, and lines end as Lean's own do.
    """
    text, header = (each.replace("\r\n", "\n") for each in (file.text, header))
    header = header.strip()
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
