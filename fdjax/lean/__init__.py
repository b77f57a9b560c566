"""Verify Lean 4 proofs, without JAX.

>>> from fdjax.lean import Problem, Verifier, install
>>> _ = install()  # the embedded Lean, once
>>> problem = Problem(name="two", statement="theorem two : 1 + 1 = 2")
>>> with Verifier(workers=1) as verifier:
...     [verdict] = verifier.verify([(problem, "  rfl")])
>>> verdict.verified
True
"""

from fdjax.lean.backends.config import (
    BackendConfig,
    Embedded,
    Fake,
    Kimina,
    Native,
    Remote,
    Repl,
)
from fdjax.lean.backends.fake import FakeBackend
from fdjax.lean.backends.native import NativeBackend
from fdjax.lean.backends.remote import RemoteBackend
from fdjax.lean.backends.repl import ReplBackend
from fdjax.lean.embedded.install import install
from fdjax.lean.embedded.location import default_target, installed
from fdjax.lean.embedded.wasm import WasmBackend
from fdjax.lean.engine.outcomes import Elaboration, StatementReport
from fdjax.lean.engine.pool import Cancellation
from fdjax.lean.engine.verifier import Statistics, Verifier
from fdjax.lean.facts.backend import (
    Backend,
    CheckRequest,
    Limits,
    RawMessage,
    RawReport,
    RunRequest,
    Submission,
    Target,
    WholeFile,
    WorkerDiedError,
)
from fdjax.lean.facts.scan import scan, scan_file
from fdjax.lean.facts.verdict import Diagnostic, Goal, Status, Verdict
from fdjax.records import Problem

__all__ = [
    "Backend",
    "BackendConfig",
    "Cancellation",
    "CheckRequest",
    "Diagnostic",
    "Elaboration",
    "Embedded",
    "Fake",
    "FakeBackend",
    "Goal",
    "Kimina",
    "Limits",
    "Native",
    "NativeBackend",
    "Problem",
    "RawMessage",
    "RawReport",
    "Remote",
    "RemoteBackend",
    "Repl",
    "ReplBackend",
    "RunRequest",
    "StatementReport",
    "Statistics",
    "Status",
    "Submission",
    "Target",
    "Verdict",
    "Verifier",
    "WasmBackend",
    "WholeFile",
    "WorkerDiedError",
    "default_target",
    "install",
    "installed",
    "scan",
    "scan_file",
]
