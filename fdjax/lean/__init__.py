"""Verify Lean 4 proofs, without JAX.

from fdjax.lean import Problem, Verifier, install

install()
problem = Problem(name="two", statement="theorem two : 1 + 1 = 2")
with Verifier(workers=2) as verifier:
    [verdict] = verifier.verify([(problem, "  rfl")])
"""

from fdjax.lean.backend import (
    Backend,
    CheckRequest,
    Limits,
    RawMessage,
    RawReport,
    Target,
    WorkerDiedError,
)
from fdjax.lean.fake import FakeBackend
from fdjax.lean.install import install
from fdjax.lean.location import default_target, installed
from fdjax.lean.safety import scan
from fdjax.lean.verdict import Diagnostic, Goal, Status, Verdict
from fdjax.lean.verifier import StatementReport, Statistics, Verifier
from fdjax.lean.wasm import WasmBackend
from fdjax.records import Problem

__all__ = [
    "Backend",
    "CheckRequest",
    "Diagnostic",
    "FakeBackend",
    "Goal",
    "Limits",
    "Problem",
    "RawMessage",
    "RawReport",
    "StatementReport",
    "Statistics",
    "Status",
    "Target",
    "Verdict",
    "Verifier",
    "WasmBackend",
    "WorkerDiedError",
    "default_target",
    "install",
    "installed",
    "scan",
]
