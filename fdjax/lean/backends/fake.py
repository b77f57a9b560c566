"""A backend without Lean, for tests: it answers what it is told to answer."""

from collections.abc import Callable

from fdjax.lean.facts.backend import (
    RawMessage,
    RawReport,
    Request,
    RunRequest,
    Target,
    WholeFile,
)

__all__ = ["FakeBackend", "accepted", "rejected"]


def accepted(*axioms: str) -> RawReport:
    """The report of a proof that Lean accepts."""
    target = Target(is_theorem=True, matches_statement=True, axioms=axioms)
    return RawReport(target=target, seconds=0.001)


def rejected(text: str = "unsolved goals\n⊢ False") -> RawReport:
    """The report of a proof with one error on its first line."""
    message = RawMessage(
        severity="error",
        line=3,  # after a statement of one line and our own `:= by`
        column=0,
        kind="Tactic.unsolvedGoals",
        text=text,
    )
    return RawReport(has_errors=True, messages=(message,), seconds=0.001)


def _accept_references(request: Request) -> RawReport:
    """Statements with `broken` fail; proofs that contain `trivial` are accepted."""
    if isinstance(request, RunRequest):
        return RawReport(seconds=0.001) if "trivial" in request.source else rejected()
    if "broken" in request.statement:
        return RawReport(statement_error="the statement does not elaborate: broken")
    if request.proof is None:
        return RawReport()
    proof = request.proof
    text = proof.text if isinstance(proof, WholeFile) else proof
    if "sorry" in text:
        return accepted("sorryAx")
    return accepted() if "trivial" in text else rejected()


class FakeBackend:
    """Deterministic answers from a function of the request.

    By default a proof is accepted when it contains `trivial` and not `sorry`.
    """

    def __init__(
        self, answer: Callable[[Request], RawReport] = _accept_references
    ) -> None:
        """Answer with `answer`, which may raise `WorkerDiedError`."""
        self._answer = answer
        self.running = False
        """Whether `start` was called last, not `close`."""
        self.requests: list[Request] = []
        """Everything that was asked, in order."""

    @property
    def identity(self) -> str:
        """Never shared with a real Lean."""
        return "fake"

    def start(self) -> None:
        """Nothing to start."""
        self.running = True

    def check(self, request: Request) -> RawReport:
        """Record the request and answer it."""
        self.running = True
        self.requests.append(request)
        return self._answer(request)

    def interrupt(self) -> None:
        """Nothing to interrupt: answers are immediate."""

    def close(self) -> None:
        """Nothing to close."""
        self.running = False
