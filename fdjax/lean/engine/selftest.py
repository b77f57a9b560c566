"""Prove that a Lean on this machine verifies as it should."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from fdjax.errors import BackendError
from fdjax.lean.facts.backend import (
    CheckRequest,
    Limits,
    RawReport,
    Submission,
    WholeFile,
)
from fdjax.lean.facts.judge import judge
from fdjax.lean.facts.verdict import Status
from fdjax.lean.sandbox.checker import CheckerProcess
from fdjax.records import Problem

__all__ = ["Outcome", "selftest"]

WALL_S = 2.0
SLACK_S = 0.5
"""How much later than its limit a proof may end."""

SUM = Problem(name="sum", statement="theorem sum (a b : Nat) : a + b = b + a")
FALSE = Problem(name="five", statement="theorem five : (2 : Nat) + 2 = 5")
CARRYING = Problem(name="sum", statement=f"{SUM.statement} := Nat.add_comm a b -- easy")
MIDDLE = Problem(name="middle", statement="theorem middle (p : Prop) : p ∨ ¬p")
SLOW = Problem(
    name="slow", statement="theorem slow : ∀ a b c : Fin 60, a + b + c = c + b + a"
)
SLOW_PROOF = (
    "  set_option maxRecDepth 100000 in\n  set_option maxHeartbeats 0 in\n  decide"
)

_CASES: tuple[tuple[str, Problem, Submission, Status], ...] = (
    ("a tactic proof", SUM, "  omega", Status.VERIFIED),
    ("a term", SUM, "  exact Nat.add_comm a b", Status.VERIFIED),
    (
        "a whole file",
        SUM,
        WholeFile(
            "/-- Helps. -/\n@[simp] theorem help (n : Nat) : n + 0 = n := rfl\n"
            "theorem sum (a b : Nat) : a + b = b + a := by\n  omega\n"
        ),
        Status.VERIFIED,
    ),
    ("a false statement", FALSE, "  decide", Status.REJECTED),
    ("a proof with an error", SUM, "  rfl", Status.REJECTED),
    ("a comment for a proof", SUM, "  -- omega", Status.REJECTED),
    ("a statement with a proof", CARRYING, "  omega", Status.REJECTED),
    ("sorry", FALSE, "  sorry", Status.REJECTED),
    ("a hidden sorry", FALSE, "  exact sorryAx _ true", Status.REJECTED),
    (
        "an axiom",
        FALSE,
        WholeFile("axiom no : False\ntheorem five : (2 : Nat) + 2 = 5 := no.elim"),
        Status.REJECTED,
    ),
    (
        "another statement",
        FALSE,
        WholeFile("theorem five : (2 : Nat) + 2 = 4 := rfl"),
        Status.REJECTED,
    ),
    (
        "an instance that changes what is meant",
        FALSE,
        WholeFile(
            "instance (priority := 9999) : OfNat Nat 5 := ⟨4⟩\n"
            "theorem five : (2 : Nat) + 2 = 5 := rfl"
        ),
        Status.REJECTED,
    ),
    (
        "the kernel switched off",
        FALSE,
        "  set_option debug.skipKernelTC true in decide +kernel",
        Status.UNSAFE,
    ),
    ("compiled code as a proof", FALSE, "  native_decide", Status.UNSAFE),
    ("a program in a tactic", FALSE, "  run_tac pure ()", Status.UNSAFE),
    ("a command after the proof", FALSE, "  sorry\n#eval 1", Status.UNSAFE),
    (
        "a macro in a file",
        FALSE,
        WholeFile(
            'macro "cheat" : tactic => `(tactic| sorry)\n'
            "theorem five : (2 : Nat) + 2 = 5 := by cheat"
        ),
        Status.UNSAFE,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One line of the report."""

    what: str
    """What was tried."""
    passed: bool
    """Whether it came out as it must."""
    found: str
    """What came out."""
    seconds: float
    """How long it took."""


def selftest(backend: CheckerProcess, header: str = "") -> Iterator[Outcome]:
    """Try a backend, each case without the scan that otherwise comes first.

    Args:
      backend: closed or not; it is closed in the end.
      header: Lean source to elaborate before every statement, such as `import Mathlib`.
    """
    try:
        yield _outcome("start", lambda: (True, _start(backend)))
        for what, problem, submission, expected in _CASES:
            yield _outcome(
                what,
                lambda c=(problem, submission, expected): _case(backend, header, *c),
            )
        yield _outcome("axioms of the library", lambda: _axioms(backend, header))
        yield _outcome("a proof that takes too long", lambda: _slow(backend, header))
        yield _outcome("the next proof", lambda: _case(backend, header, *_CASES[0][1:]))
    finally:
        backend.close()


def _outcome(what: str, run: Callable[[], tuple[bool, str]]) -> Outcome:
    begin = time.monotonic()
    try:
        passed, found = run()
    except BackendError as error:
        passed, found = False, str(error)
    return Outcome(
        what=what, passed=passed, found=found, seconds=time.monotonic() - begin
    )


def _start(backend: CheckerProcess) -> str:
    backend.start()
    return backend.identity


def _check(
    backend: CheckerProcess, header: str, problem: Problem, submission: Submission
) -> tuple[RawReport, Status]:
    request = CheckRequest(
        name=problem.name,
        header=header,
        statement=problem.statement,
        proof=submission,
        limits=replace(Limits(), wall_s=60.0 if problem is not SLOW else WALL_S),
    )
    report = backend.check(request)
    return report, judge(report, request).status


def _case(
    backend: CheckerProcess,
    header: str,
    problem: Problem,
    submission: Submission,
    expected: Status,
) -> tuple[bool, str]:
    report, status = _check(backend, header, problem, submission)
    told = [message.text for message in report.messages if message.severity == "error"]
    detail = (
        f": {report.statement_error or told[0]}"
        if status is not expected and (report.statement_error or told)
        else ""
    )
    return status is expected, f"{status.name}{detail}"


def _axioms(backend: CheckerProcess, header: str) -> tuple[bool, str]:
    """A full toolchain knows what its theorems rest on; exported files do not."""
    report, status = _check(backend, header, MIDDLE, "  exact Classical.em p")
    axioms = report.target.axioms if report.target else ()
    found = ", ".join(axioms) or "none are known: the library holds exported data only"
    return status is Status.VERIFIED, f"{status.name}: {found}"


def _slow(backend: CheckerProcess, header: str) -> tuple[bool, str]:
    """Ended in time; by Lean itself where the checker has a watchdog thread."""
    before = backend.pid
    report, status = _check(backend, header, SLOW, SLOW_PROOF)
    how = "cancelled" if backend.pid == before else "killed"
    in_time = WALL_S <= report.seconds <= WALL_S + SLACK_S
    return (
        status is Status.TIMEOUT and in_time,
        f"{status.name}: {how} after {report.seconds:.2f} s of {WALL_S:g} s",
    )
