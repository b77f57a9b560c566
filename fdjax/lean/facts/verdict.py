"""Verdicts: what Lean said about one proof, as data."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from fdjax.records import Status

__all__ = ["Diagnostic", "Goal", "Severity", "Status", "Verdict"]

Severity = Literal["error", "warning", "information"]


@dataclass(frozen=True, kw_only=True)
class Diagnostic:
    """One message from Lean and where it points."""

    severity: Severity
    """Lean's own grading of the message."""
    line: int
    """1-based; line 1 is the first line of the proof (of the statement or the header
    that it points into where `in_proof` is False)."""
    column: int
    """0-based, in code points."""
    end_line: int | None = None
    """Last line of the span, None when unknown or on the other side of `:= by`."""
    end_column: int | None = None
    """Column after the span's last character; None together with `end_line`."""
    kind: str = ""
    """Lean's machine-readable tag such as `Tactic.unsolvedGoals`; often empty."""
    text: str = ""
    """The message."""
    in_proof: bool = True
    """False when the message points into the statement or its header."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A goal that was open where the proof failed."""

    text: str
    """Hypotheses and target as Lean prints them; the last line starts with ⊢."""
    line: int
    """Line of the diagnostic that reported it, counted as in `Diagnostic`."""
    column: int
    """Column of that diagnostic."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of checking one proof of one problem."""

    status: Status
    """What was decided; never inferred from message text."""
    diagnostics: tuple[Diagnostic, ...] = ()
    """Messages in source order, capped by `Limits.output_bytes`."""
    goals: tuple[Goal, ...] = ()
    """Open goals at the failure points, in the same order."""
    axioms: tuple[str, ...] = ()
    """Axioms the theorem rests on, sorted; empty unless a theorem was added."""
    seconds: float = 0.0
    """Wall time of the proof's elaboration."""
    reason: str = ""
    """One sentence for people; empty when VERIFIED."""
    cached: bool = False
    """True when the verdict was read from a cache."""
    broken_statement: bool = False
    """True when the problem is at fault, not the proof: its own header or statement
    cannot be used, and `reason` says why."""

    @property
    def missing(self) -> bool:
        """Whether nothing was decided about the proof: mask the sample.

        The checker failed, or the problem is at fault.
        """
        return not self.status.decided or self.broken_statement

    @property
    def lasting(self) -> bool:
        """Whether another check would decide the same: a cache may keep it.

        What time, memory or a broken machine decided may come out otherwise, and what
        is wrong with a problem is told anew each time.
        """
        decided_by_chance = self.status in (Status.TIMEOUT, Status.CRASHED)
        return not (decided_by_chance or self.broken_statement)

    @property
    def verified(self) -> bool:
        """Whether the proof counts as a proof."""
        return self.status is Status.VERIFIED

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The diagnostics of severity `error`."""
        return tuple(d for d in self.diagnostics if d.severity == "error")

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON-ready values; `from_dict` reads it back."""
        return asdict(self) | {"status": self.status.value}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Verdict":
        """Read what `to_dict` wrote.

        Raises:
          KeyError, TypeError, ValueError: `values` is something else.
        """
        return cls(
            status=Status(values["status"]),
            diagnostics=tuple(Diagnostic(**d) for d in values["diagnostics"]),
            goals=tuple(Goal(**goal) for goal in values["goals"]),
            axioms=tuple(values["axioms"]),
            seconds=values["seconds"],
            reason=values["reason"],
            cached=values["cached"],
            # Rows of earlier versions lack it.
            broken_statement=values.get("broken_statement", False),
        )
