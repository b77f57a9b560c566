"""From what trusted code observed to a verdict."""

from fdjax.lean.facts.backend import CheckRequest, RawReport
from fdjax.lean.facts.source import goals_of, source_of, trusted_source
from fdjax.lean.facts.verdict import Status, Verdict

__all__ = ["ALLOWED_AXIOMS", "judge"]

ALLOWED_AXIOMS = frozenset({"propext", "Classical.choice", "Quot.sound"})
"""Lean's three standard axioms; anything else is an assumption."""


def judge(report: RawReport, request: CheckRequest) -> Verdict:
    """Decide one proof from the facts of its report.

    VERIFIED is only reached at the very end: a missing fact cannot lead there.
    """
    status, reason = _decide(report)
    source = source_of(request)
    if report.statement_error:
        source = trusted_source(request, report)
        if remedy := source.remedy(report.messages):
            reason = f"{remedy} ({reason})"
    diagnostics = tuple(source.diagnostic(message) for message in report.messages)
    return Verdict(
        status=status,
        diagnostics=diagnostics,
        goals=goals_of(diagnostics),
        axioms=tuple(sorted(report.target.axioms)) if report.target else (),
        seconds=report.seconds,
        reason=reason,
        broken_statement=bool(report.statement_error),
    )


def _decide(report: RawReport) -> tuple[Status, str]:
    if report.statement_error:
        return Status.REJECTED, report.statement_error
    if report.refused:
        return Status.UNSAFE, f"`{report.refused}` is not allowed"
    if report.left_proof:
        return Status.UNSAFE, "another command follows the proof"
    if report.timed_out:
        return Status.TIMEOUT, "the proof used up its time"
    if report.out_of_memory:
        return Status.TIMEOUT, "the proof used up its memory"
    if report.no_proof:
        return Status.REJECTED, "there is no proof behind `:= by`"
    if report.has_errors:
        return Status.REJECTED, "Lean reports an error"
    target = report.target
    if target is None:
        return Status.REJECTED, "no constant has the theorem's name"
    if not target.is_theorem:
        return Status.REJECTED, "the constant with the theorem's name is no theorem"
    if not target.matches_statement:
        return Status.REJECTED, "the theorem proves another statement"
    foreign = sorted(set(target.axioms) - ALLOWED_AXIOMS)
    if "sorryAx" in foreign:
        return Status.REJECTED, "the proof rests on sorry"
    if foreign:
        return Status.REJECTED, f"the proof rests on the axioms {', '.join(foreign)}"
    return Status.VERIFIED, ""
