"""Attempts at a theorem as Lean would have judged them."""

from fdjax.feedback import Attempt
from fdjax.judge import Judgement
from fdjax.lean import Diagnostic, Status, Verdict
from fdjax.records import Problem

PROBLEM = Problem(
    name="right",
    header="import Mathlib",
    statement="theorem right (p q : Prop) (h1 : p ∧ q) : q",
    references=("  obtain ⟨h2, h3⟩ := h1\n  exact h3",),
)
MISMATCH = Diagnostic(
    severity="error",
    line=2,
    column=8,
    end_line=2,
    end_column=10,
    text="Type mismatch\n  h2\nhas type\n  p\nbut is expected to have type\n  q",
)


def attempt(proof, verdict, *, problem=PROBLEM, text=None):
    return Attempt(
        problem=problem,
        text=proof if text is None else text,
        judgement=Judgement.by_lean(verdict, proof),
    )


def failed(proof, *diagnostics, problem=PROBLEM):
    verdict = Verdict(
        status=Status.REJECTED, diagnostics=diagnostics, reason="it has errors"
    )
    return attempt(proof, verdict, problem=problem)


def passed(proof, *, problem=PROBLEM):
    return attempt(proof, Verdict(status=Status.VERIFIED), problem=problem)
