"""From a worker's answer to what the verifier says of it."""

from dataclasses import dataclass, replace
from typing import Literal

from fdjax.errors import BackendError
from fdjax.lean.engine.pool import Answer
from fdjax.lean.facts.answers import misfit
from fdjax.lean.facts.backend import CheckRequest, RunRequest, WorkerDiedError
from fdjax.lean.facts.judge import judge
from fdjax.lean.facts.source import File
from fdjax.lean.facts.verdict import Diagnostic, Status, Verdict

__all__ = [
    "Elaboration",
    "StatementReport",
    "elaboration",
    "statement_report",
    "verdict",
]


@dataclass(frozen=True, kw_only=True)
class StatementReport:
    """Whether a problem's own header and statement can be used."""

    ok: bool
    """Whether proofs of it can be checked."""
    reason: str = ""
    """What is wrong, with Lean's words; empty when `ok`."""
    diagnostics: tuple[Diagnostic, ...] = ()
    """Lean's messages about the statement or its header."""


@dataclass(frozen=True, kw_only=True)
class Elaboration:
    """What Lean says about a file; not a verdict about any theorem."""

    diagnostics: tuple[Diagnostic, ...] = ()
    """Messages in source order, capped by `Limits.output_bytes`."""
    complete: bool = True
    """Whether every error and warning is among the diagnostics."""
    ended: Literal["done", "unsafe", "timeout", "memory", "crashed"] = "done"
    """Whether all of it was elaborated, and what was in the way."""
    reason: str = ""
    """One sentence for people; empty when `done`."""
    seconds: float = 0.0
    """Wall time of the elaboration."""


def verdict(request: CheckRequest, answer: Answer) -> Verdict:
    """The judgement of a proof; CRASHED where the checker failed."""
    if isinstance(answer, WorkerDiedError):
        return Verdict(
            status=Status.CRASHED, reason=f"the checker failed twice: {answer}"
        )
    judged = judge(answer, request)
    if answer.has_errors and (reason := misfit(request.proof or "")):
        return replace(judged, reason=f"{judged.reason}: {reason}")
    return judged


def statement_report(request: CheckRequest, answer: Answer) -> StatementReport:
    """What was found about a statement alone.

    Raises:
      BackendError: the checker failed.
    """
    if isinstance(answer, WorkerDiedError):
        raise BackendError(
            f"{request.name}: expected Lean to elaborate the statement, but it died "
            f"twice: {answer}"
        )
    if not answer.statement_error:
        return StatementReport(ok=True)
    judged = judge(answer, request)
    return StatementReport(
        ok=False, reason=judged.reason, diagnostics=judged.diagnostics
    )


def elaboration(request: RunRequest, answer: Answer) -> Elaboration:
    """What was found about a file that need prove nothing."""
    if isinstance(answer, WorkerDiedError):
        return Elaboration(ended="crashed", reason=f"Lean failed twice: {answer}")
    source = File(text=request.source)
    ended, reason = "done", ""
    if answer.refused:
        ended, reason = "unsafe", f"`{answer.refused}` is not allowed"
    elif answer.timed_out:
        ended, reason = "timeout", "the file used up its time"
    elif answer.out_of_memory:
        ended, reason = "memory", "the file used up its memory"
    shows_errors = any(message.severity == "error" for message in answer.messages)
    return Elaboration(
        diagnostics=tuple(map(source.diagnostic, answer.messages)),
        complete=not answer.left_out and shows_errors == answer.has_errors,
        ended=ended,
        reason=reason,
        seconds=answer.seconds,
    )
