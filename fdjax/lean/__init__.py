"""Verify Lean 4 proofs, without JAX."""

from fdjax.lean.backend import Backend, CheckRequest, Limits, RawReport
from fdjax.lean.verdict import Diagnostic, Goal, Status, Verdict
from fdjax.lean.verifier import StatementReport, Statistics, Verifier
from fdjax.records import Problem

__all__ = [
    "Backend",
    "CheckRequest",
    "Diagnostic",
    "Goal",
    "Limits",
    "Problem",
    "RawReport",
    "StatementReport",
    "Statistics",
    "Status",
    "Verdict",
    "Verifier",
]
