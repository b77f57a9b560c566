"""Splice a proof onto its statement, and map Lean's positions back."""

from dataclasses import dataclass

from fdjax.lean.backend import RawMessage
from fdjax.lean.verdict import Diagnostic, Goal

__all__ = ["Splice", "goals_of", "splice"]

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


def splice(statement: str, proof: str) -> Splice:
    """Put `proof` after `statement := by`."""
    statement = statement.rstrip()
    return Splice(
        text=statement + OPENING + proof,
        opening_line=statement.count("\n") + 1,
        opening_column=len(statement) - (statement.rfind("\n") + 1),
    )


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
